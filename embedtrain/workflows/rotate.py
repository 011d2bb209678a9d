"""Workflow: a model's vectors are turned to principal components, or centred and scaled, by what some texts have."""

import copy
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.contract.stored import StoredOutputs
from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.edits.rotate import (
    binary_axes,
    check_rotatable,
    principal_axes,
    rotate_encoder,
    sign_cosine,
    standardize_encoder,
)
from embedtrain.progress import console, progress_bar
from embedtrain.release.export import card_of, write_model
from embedtrain.training.adapters.bits import learn_axes
from embedtrain.types import Side
from embedtrain.workflows.encode.file import read_texts

FEWEST, PER_DIMENSION = 4_000, 10
"""Rows that are encoded where nobody says how many: so many, and so many per dimension of the vectors."""
NOTE = """

## Turned to principal components

A rotation behind the pooling turns the vectors to the principal components of {number:,} texts. Similarities of whole vectors
are those of the model it was made of; the first dimensions carry the most, so vectors may be cut (`truncate_dim`).
"""
FEWEST_FOR_BITS, PER_BIT = 10_000, 30
"""The same for a turn towards signs, which fits more; fewer texts can leave bits worse than they were."""
SIGNS = """

## Turned for bits

A rotation behind the pooling turns the vectors of {number:,} texts towards their signs, so that one bit for each of the
{dim} dimensions (1 where it is not below 0) keeps more of them. {similar}
"""
WHOLE = "Similarities of floats are those of the model it was made of."
CUT = "The other dimensions were left out: scores above are of the model that it was made of."
CALIBRATED = """

## Centred and scaled

A layer behind the pooling centres and scales each dimension by the mean and spread of {number:,} texts. It is for texts like
those. Scores above are of the model that it was made of.
"""


@owns("output")
def calibrate(
    model: str,
    data: str,
    output: Path,
    *,
    split: str = "train",
    texts: bool = False,
    column: str | None = None,
    limit: int | None = None,
) -> int:
    """Write a model that centres and scales the dimensions of its vectors by what some texts have.

    Vectors of one language often lie together, apart from those of others. One model for each language, calibrated on texts
    of it, brings them to one place; nothing is trained, and no translation is needed. Arguments as for :func:`rotate`.

    Returns:
        The number of texts.

    Raises:
        UserError: If the model has no plain vector, or there are fewer than two texts.

    Source: Wu et al. (2022), https://arxiv.org/abs/2206.03281, the post-processing of CCP.
    """
    encoder = _open(model, output, texts=texts, column=column)
    limit = limit or max(FEWEST, PER_DIMENSION * encoder.dim)
    view = copy.copy(encoder)  # the same weights; vectors as they are before they are normalised
    view.contract = encoder.contract.model_copy(update={"similarity": "dot"})
    console.print("Centring and scaling")
    vectors = _encode(view, _read(data, split, texts=texts, column=column, limit=limit))
    if len(vectors) < 2:
        raise UserError(data, "holds too few texts", got=len(vectors), cure="Give thousands")
    standardize_encoder(encoder, torch.from_numpy(vectors))
    _write(model, encoder, output, CALIBRATED.format(number=len(vectors)))
    return len(vectors)


@owns("output")
def rotate(
    model: str,
    data: str,
    output: Path,
    *,
    split: str = "train",
    texts: bool = False,
    column: str | None = None,
    limit: int | None = None,
) -> dict[int, float]:
    """Write a model whose vectors lie along the principal components of some texts.

    Similarities of whole vectors stay as they were; a prefix keeps more of them than before. Nothing is
    trained. Training with Matryoshka may begin from the result.

    Args:
        model: A dense model: a folder or a Hub id.
        data: Training rows as ``data.sources`` reads them; their queries and positives count alike.
        output: Folder to write; must not exist.
        split: Of ``data``.
        texts: ``data`` is a file of documents alone, as ``embedtrain encode`` reads them.
        column: With ``texts``: key of the text.
        limit: Rows or texts to encode, drawn evenly from all; None takes ten per dimension, at least 4,000.

    Returns:
        Share of the vectors' squared length in the first 1/2, 1/4, 1/8 and 1/16 dimensions, by their number.

    Raises:
        UserError: If the model has no plain vector, or the texts are fewer than its dimensions.
    """
    encoder = _open(model, output, texts=texts, column=column)
    limit = limit or max(FEWEST, PER_DIMENSION * encoder.dim)
    console.print("Turning to principal components")
    vectors = _encode(encoder, _read(data, split, texts=texts, column=column, limit=limit))
    _enough(data, len(vectors), encoder.dim)
    axes, shares = principal_axes(torch.from_numpy(vectors))
    rotate_encoder(encoder, axes)
    _write(model, encoder, output, NOTE.format(number=len(vectors)))  # its scores stay true
    sizes = [encoder.dim // part for part in (2, 4, 8, 16) if encoder.dim >= part]
    return {size: float(shares[:size].sum()) for size in sizes}


@owns("output")
def rotate_for_bits(
    model: str,
    data: str,
    output: Path,
    *,
    split: str = "train",
    texts: bool = False,
    column: str | None = None,
    limit: int | None = None,
    dim: int | None = None,
    steps: int = 0,
) -> tuple[float, float]:
    """Write a model whose vectors are turned towards their signs, to be stored as one bit per dimension.

    Arguments as for :func:`rotate`; texts like those that will be indexed are best. ``dim`` keeps so many dimensions,
    of the most important directions; None keeps all, and similarities of floats as they were. With ``steps``, such as 400,
    the turn goes on to learn that bits rank the texts as floats do: for texts that stand for others. One that was fitted on
    the very texts of an index loses by it.

    Returns:
        The mean cosine of vectors with their signs before, in the first ``dim`` dimensions, and after.

    Raises:
        UserError: As :func:`rotate`, or if the model has fewer dimensions than ``dim``.

    Source: iterative quantisation, :func:`embedtrain.models.edits.rotate.binary_axes`, then
    :mod:`embedtrain.training.adapters.bits`.
    """
    encoder = _open(model, output, texts=texts, column=column)
    whole = encoder.dim
    if dim is not None and dim > whole:
        raise UserError("--dim", f"is more than the model's {whole} dimensions", got=dim)
    limit = limit or max(FEWEST_FOR_BITS, PER_BIT * whole)
    console.print("Turning towards signs")
    vectors = torch.from_numpy(
        _encode(encoder, _read(data, split, texts=texts, column=column, limit=limit))
    )
    _enough(data, len(vectors), whole)
    if len(vectors) < FEWEST_FOR_BITS:
        console.print(
            f"{len(vectors):,} texts are few: measure whether bits are better than before"
        )
    axes = learn_axes(vectors, binary_axes(vectors, dim), steps)
    before, after = sign_cosine(vectors[:, :dim]), sign_cosine(vectors.double() @ axes.T)
    rotate_encoder(encoder, axes)
    similar = WHOLE if len(axes) == whole else CUT
    note = SIGNS.format(number=len(vectors), dim=len(axes), similar=similar)
    _write(model, encoder, output, note, StoredOutputs(quantize=("binary",), dims=(len(axes),)))
    return before, after


def _enough(data: str, number: int, dim: int) -> None:
    if number < dim:
        problem = f"holds fewer texts than the model has dimensions ({dim})"
        raise UserError(data, problem, got=number, cure="Give thousands")


def _open(model: str, output: Path, *, texts: bool, column: str | None) -> DenseEncoder:
    """Check what can be checked before work starts, and load the model."""
    if output.exists():
        raise UserError("--output", "exists", got=str(output), cure="Choose another folder")
    if column is not None and not texts:
        raise UserError(
            "--column", "names the column of a file of texts", cure="Add --texts or leave it out"
        )
    encoder = load_encoder(model)
    if not isinstance(encoder, DenseEncoder):
        raise UserError(model, "has several vectors per text", cure="Name a dense model")
    check_rotatable(encoder)
    return encoder


def _write(
    model: str,
    encoder: DenseEncoder,
    output: Path,
    note: str,
    outputs: StoredOutputs | None = None,
) -> None:
    """Write the changed model, a note of the change behind its card; ``outputs`` is what its dimensions are now made for."""
    encoder.contract = encoder.contract.model_copy(update={"outputs": outputs})
    card = card_of(Path(model))
    write_model(encoder, output, card=card and card.rstrip() + note)


def _read(
    data: str, split: str, *, texts: bool, column: str | None, limit: int
) -> dict[Side, list[str]]:
    """Return the texts of each side."""
    if texts:
        return {"document": _draw(read_texts(Path(data), column), limit)}
    rows = _draw(open_source(SourceConfig(path=data, split=split)).examples(), limit)
    return {"query": [row.query for row in rows], "document": [row.positives[0] for row in rows]}


def _draw(items: Iterable[Any], limit: int) -> list[Any]:
    """Return so many of all, each as likely, in memory of the result (Vitter's algorithm R, 1985)."""
    generator, kept = random.Random(0), []
    for number, item in enumerate(items):
        place = number if number < limit else generator.randrange(number + 1)
        if number < limit:
            kept.append(item)
        elif place < limit:
            kept[place] = item
    return kept


def _encode(encoder: DenseEncoder, sides: dict[Side, list[str]]) -> NDArray[np.float32]:
    total = sum(map(len, sides.values()))
    with progress_bar("Encoding", total) as advance:
        parts = [encode_texts(encoder, of, side, progress=advance) for side, of in sides.items()]
    return np.concatenate(parts)
