"""Encode any number of texts with bounded memory: a corpus, the queries of a task, one query."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray

from embedtrain.errors import UserError
from embedtrain.models.chunking import Execution
from embedtrain.models.dense import DenseEncoder
from embedtrain.types import Side

TEXTS_AT_ONCE = 4096
"""Texts tokenised and sorted by length together: enough to fill chunks with equal lengths."""


@torch.no_grad()
def encode_texts(
    model: DenseEncoder,
    texts: Sequence[str],
    side: Side,
    *,
    execution: Execution | None = None,
    out: NDArray[Any] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Float32[np.ndarray, "texts dim"]:
    """Encode texts under the model's own contract, in evaluation mode.

    Args:
        model: The encoder; its training mode is put back afterwards.
        texts: Texts without prompts.
        side: Decides prompt and length.
        execution: Chunk size; the default suits one CPU or one GPU.
        out: Array to fill, such as a memory-mapped file; a new one if None.
        progress: Called with the number of texts each time some are done.

    Raises:
        UserError: If a text is empty or not finite embeddings come out.
    """
    execution = execution or Execution(chunk_tokens=16_384)
    if out is None:
        out = np.empty((len(texts), model.dim), dtype=np.float32)
    training = model.training
    model.eval()
    try:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            block = texts[start : start + TEXTS_AT_ONCE]
            _refuse_empty(block, side, start)
            tokens = model.tokenization.encode(block, side).to(model.device)
            embeddings = model.embed(tokens, execution).float().cpu().numpy()
            if not np.isfinite(embeddings).all():
                raise UserError(
                    f"{side} embeddings", "are not finite", cure="The weights hold NaN: train again"
                )
            out[start : start + len(block)] = embeddings
            progress(len(block))
    finally:
        model.train(training)
    return out


def _refuse_empty(texts: Sequence[str], side: Side, start: int) -> None:
    for row, text in enumerate(texts, start + 1):
        if not text.strip():
            raise UserError(f"{side} {row}", "is empty", got=text, cure="Remove it")
