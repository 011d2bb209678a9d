"""Whether an exported cross-encoder scores pairs as the trained one does."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from embedtrain.errors import UserError
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.precision import computing

Reload = Callable[[Path, Path, str], subprocess.CompletedProcess[str]]
"""Reads a folder in another process: the folder, the file of results, and what to compute, as JSON."""
MAX_DIFFERENCE = 1e-5


def verify_scores(
    model: CrossEncoderModel, folder: Path, texts: Sequence[str], reload: Reload
) -> None:
    """Compare the scores, or logits, of every two texts with those of the folder, loaded in a fresh process.

    The reader is sentence-transformers where it is installed and the template is the tokenizer's own, else embedtrain.

    Raises:
        UserError: If a score differs by more than 1e-5, relative to the largest where that exceeds 1.
    """
    pairs = [(one, other) for one in texts for other in texts]
    kept = [pair for pair in pairs if _is_whole(model, pair)] or [("x", "x")]
    ours = values_of(model, kept)
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "scores.npz"
        done = reload(folder, result, json.dumps(kept))
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(folder, "cannot be loaded again", got=reason, cure="Please report this")
        with np.load(result) as loaded:
            theirs = loaded["scores"].reshape(ours.shape)
    found = float(np.abs(ours - theirs).max()) / max(1.0, float(np.abs(ours).max()))
    if not found <= MAX_DIFFERENCE:  # NaN is not
        raise UserError(
            folder, "gives other scores when loaded again", got=found, cure="Please report this"
        )


@torch.no_grad()
def values_of(
    model: CrossEncoderModel, pairs: Sequence[tuple[str, str]]
) -> Float64[np.ndarray, "pairs outputs"]:
    """Return the score, or the logits of all classes, of each pair; the model is left as it was."""
    before = model.num_cut, model.training
    model.eval()
    with computing("fp32", model.device.type):
        joined = model.pairs_of(pairs).to(model.device)
        found: Float64[np.ndarray, "pairs outputs"] = (
            model.values(joined, Execution()).cpu().double().numpy()
        )
    model.num_cut = before[0]
    model.train(before[1])
    return found


def _is_whole(model: CrossEncoderModel, pair: tuple[str, str]) -> bool:
    """Whether no limit cuts a pair: readers cut in other ways."""
    query = len(model.tokenization.encode(pair[:1], "query").ids)
    document = len(model.tokenization.encode(pair[1:], "document").ids)
    room = model.contract.pair_length - model.parts.size
    return (
        query < model.contract.query_length
        and query + document <= room
        and min(query, document) > 0
    )
