"""Workflow: a trained model becomes a folder that other libraries load, proven before it is announced."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder, write_file
from embedtrain.locks import owns
from embedtrain.models.build import save_model
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.edits.lengthen import lengthen_weights
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.pretraining.folder import save_decoder, save_masked_autoencoder
from embedtrain.models.text_model import TextModel
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_folder import RunFolder, load_pretrained, load_trained, open_run
from embedtrain.release.cards.changes import change_card, describe_changes
from embedtrain.release.cards.pretraining import render_pretrain_card
from embedtrain.release.exported_model import (
    changed_model,
    model_of_folder,
    refuse_measured,
    untrained_model,
)
from embedtrain.release.pair_scores import verify_scores
from embedtrain.release.reload import probe_vectors
from embedtrain.resources import is_recipe
from embedtrain.types import Side

PROBES = (
    "split a list into chunks of equal size",
    "How do I read a file line by line?",
    "naïve café, 東京, Zürich",
    "x",
    "The quick brown fox jumps over the lazy dog. " * 3,
)
"""Texts whose vectors must survive the round trip."""
MAX_DIFFERENCE = 1e-5
MIN_COSINE = 0.99999


@owns("output")
def export(
    source: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    layer: int | None = None,
    dim: int | None = None,
    instruction: str | None = None,
    long_inputs: LongInputs | None = None,
    sparse: bool = False,
    probabilities: Path | None = None,
    overrides: Sequence[str] = (),
    add: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Export a run's best model, re-export a model folder, or write what a recipe's training would begin with.

    Args:
        source: A run folder, a model folder, a Hub id or a recipe.
        output: The folder to write; it appears whole or not at all.
        overwrite: Replace ``output`` if it exists.
        layer: End the model at this layer, counted from 1.
        dim: Keep the first dimensions only.
        instruction: Put the prompts of this one of the model's in the place of the usual ones.
        sparse: Take a masked-language model that says nothing of its use as a sparse model (SPLADE); of a run its
            exported model.
        probabilities: The result of ``evaluate --rerank`` with this very reranker, whose sigmoid is folded into its
            head; of a run its exported model.
        overrides: Keys of the recipe to set.
        add: Writes further files into the folder before it appears.
        long_inputs: Write positions for longer texts into weights and config, for texts of any length.

    Raises:
        UserError: If ``output`` exists, there is no such layer or dimension, plain files cannot express the
            longer positions, the disk is full, or the reloaded vectors differ.
    """
    run, recipe = RunFolder(Path(source)), None
    if run.is_run:
        run, recipe = open_run(run.path)
    card = card_of(run.model if recipe else run.path)
    # A checkpoint does not know what vectors and scores were made for, or that the start was exported.
    if isinstance(recipe, Recipe) and run.model.is_dir():
        source, recipe = str(run.model), None
    changes = describe_changes(layer, dim, instruction, long_inputs, probabilities)
    if isinstance(recipe, PretrainRecipe) and not changes and not sparse:
        return export_pretrained(run, recipe, Path(output), overwrite=overwrite, add=add)
    measured = sparse or probabilities is not None
    if recipe is not None and (measured or isinstance(recipe, PretrainRecipe)):
        source, recipe = str(run.model), None
    model: TextModel
    if is_recipe(str(source)):
        refuse_measured(source, sparse=sparse, scores=probabilities is not None)
        model = untrained_model(source, overrides)
    elif overrides:
        raise UserError(
            "keys to set", "are for a recipe", got=list(overrides), cure="Leave them out"
        )
    elif recipe is None:
        model = model_of_folder(str(source), sparse=sparse, scores=probabilities is not None)
    else:
        model = load_trained(run, recipe)
    if changes:
        model = changed_model(model, source, changes, layer, dim, instruction, probabilities)
        if isinstance(model, TextEncoder):
            lengthen_weights(model, long_inputs)
        card = card and change_card(card, changes)
    return write_model(model, Path(output), card=card, overwrite=overwrite, add=add)


def card_of(folder: Path) -> str | None:
    """Return the card of a model folder, if it has one."""
    card = folder / "README.md"
    return card.read_text(encoding="utf-8") if card.is_file() else None


def write_model(
    model: TextModel,
    output: Path,
    *,
    card: str | None = None,
    overwrite: bool = False,
    save: Callable[[Path], None] | None = None,
    add: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Write a model folder, reload it in a fresh process, compare, and only then put it in place.

    ``save`` writes the files where more than the encoder is to be kept, and ``add`` what others read besides.
    """
    if output.exists() and not overwrite:
        raise UserError(
            "--output", "exists", got=str(output), cure="Add --overwrite or choose another"
        )
    size = sum(weight.nbytes for weight in model.state_dict().values())
    with appearing_folder(output, num_bytes=size) as building, _called(building, output):
        (save or partial(save_model, model))(building)
        if card is not None:
            write_file(building / "README.md", card)
        verify(model, building)
        add(building)
    return output


@contextmanager
def _called(building: Path, output: Path) -> Iterator[None]:
    """Let mistakes in a folder that is being filled be about the name that it is to have."""
    try:
        yield
    except UserError as error:
        error.args = (str(error).replace(str(building), str(output)),)
        raise


def export_pretrained(
    run: RunFolder,
    recipe: PretrainRecipe,
    output: Path,
    *,
    overwrite: bool = False,
    add: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Write the encoder of a pre-training run, with its head where a later stage needs it.

    The decoder goes to ``decoder/`` of the run folder.

    Raises:
        UserError: If there is no checkpoint, ``output`` exists, or the reloaded vectors differ.
    """
    model = load_pretrained(run, recipe)
    if model.decoder is not None:
        with appearing_folder(run.decoder) as building:
            save_decoder(model, building)
    return write_model(
        model.encoder,
        output,
        card=render_pretrain_card(run, recipe),
        overwrite=overwrite,
        add=add,
        save=lambda folder: save_masked_autoencoder(
            model, folder, with_head=recipe.objective.keeps_head
        ),
    )


def verify(model: TextModel, folder: Path) -> None:
    """Compare the model's vectors, or scores, with those of the folder, loaded in a fresh process.

    The reader is sentence-transformers where it is installed, else embedtrain itself.

    Raises:
        UserError: If a cosine is below 0.99999 or a coordinate differs by more than 1e-5.
    """
    if isinstance(model, CrossEncoderModel):
        verify_scores(model, folder, PROBES, reload_elsewhere)
        return
    assert isinstance(model, TextEncoder)
    sides: tuple[Side, ...] = ("query", "document")
    if isinstance(model, DenseEncoder) and model.contract.document_model:
        sides = ("query",)  # documents belong to another folder
    probes = _short_probes(model)
    ours = {side: probe_vectors(model, probes, side) for side in sides}
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "vectors.npz"
        done = reload_elsewhere(folder, result, json.dumps(probes))
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(folder, "cannot be loaded again", got=reason, cure="Please report this")
        with np.load(result) as loaded:
            theirs = {
                side: [loaded[f"{side}{number}"] for number in range(len(ours[side]))]
                for side in sides
            }
    for side in sides:
        for one, other in zip(ours[side], theirs[side], strict=True):
            if found := difference(one, other, MAX_DIFFERENCE, MIN_COSINE):
                raise UserError(
                    folder,
                    f"gives other {side} vectors when loaded again",
                    got=found,
                    cure="Please report this",
                )


def largest_difference(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> float:
    """Return the largest difference of a number, relative to the largest one where that exceeds 1."""
    return float(np.abs(ours - theirs).max()) / max(1.0, float(np.abs(ours).max()))


def reload_elsewhere(folder: Path, result: Path, probes: str) -> subprocess.CompletedProcess[str]:
    """Encode a JSON list of texts with the folder in a process that shares nothing with this one."""
    command = [sys.executable, "-m", "embedtrain.release.reload", str(folder), str(result)]
    return subprocess.run(command, input=probes, capture_output=True, text=True, check=False)


def difference(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], most: float, least_cosine: float
) -> str:
    """Say by how much vectors differ; empty if by no more than rounding."""
    if ours.shape != theirs.shape:
        return f"shape {theirs.shape}, not {ours.shape}"
    largest = largest_difference(ours, theirs)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = float(((ours * theirs).sum(axis=1)[norms > 0] / norms[norms > 0]).min(initial=1.0))
    if largest <= most and cosine >= least_cosine:
        return ""
    return f"difference {largest:.2e}, cosine {cosine:.6f}"


def _short_probes(model: TextEncoder) -> list[str]:
    """Return the probes that no limit cuts: readers know one limit, and we may have two."""
    shorter: Side = min(("query", "document"), key=model.contract.length)
    tokens = model.tokenization(PROBES, shorter)
    limit = model.contract.length(shorter)
    return [text for text, ids in zip(PROBES, tokens, strict=True) if len(ids) < limit] or ["x"]
