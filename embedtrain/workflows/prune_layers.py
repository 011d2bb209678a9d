"""Workflow: a model loses the layers that its vectors of some texts miss the least: a start for distillation."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.files import refuse_existing
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.edits.prune_layers import Round, check_layers, drop_layers, without_layers
from embedtrain.release.export import card_of, write_model
from embedtrain.workflows.encode.file import DOCUMENT_COLUMNS, read_texts

TEXTS = 500
"""Texts that are encoded for each layer that is tried."""
NOTE = """

## Fewer layers

Layers {kept} of {total} stayed, those without the others move vectors of {number:,} texts the least: a mean squared distance of
{distance:.3f} (two that have nothing in common are 2 apart). It is a start for training, as `distill/leaf` does. Scores above are
of the model that it was made of.
"""


@owns("output")
def prune_layers(
    model: str,
    texts: Path,
    output: Path,
    keep: int,
    *,
    column: str | None = None,
    limit: int = TEXTS,
    told: Callable[[Round], None] = lambda _: None,
) -> Round:
    """Write a model that keeps some of its layers.

    Layers go one by one, each time the one without which vectors of length 1 lie nearest to those of the whole
    model, in mean squared distance.

    Args:
        model: A dense model: a folder or a Hub id.
        texts: A file as ``embedtrain encode`` reads it.
        output: Folder to write; must not exist.
        keep: Layers that stay.
        column: Key of the text, where the file is a table.
        limit: Texts at most, the first ones.
        told: Called after each round.

    Returns:
        What the last round left.

    Raises:
        UserError: If the model has no layers to lose, or the file holds no text.
    """
    refuse_existing(output)
    encoder = load_encoder(model)
    if not isinstance(encoder, DenseEncoder):
        raise UserError(model, "has several vectors per text", cure="Name a dense model")
    check_layers(encoder, keep)
    asked = list(islice(read_texts(texts, column, DOCUMENT_COLUMNS), limit))
    if not asked:
        raise UserError(texts, "holds no text", cure="Give some hundreds")
    whole = _unit(encoder, asked)

    def distance(smaller: DenseEncoder) -> float:
        return float(np.square(_unit(smaller, asked) - whole).sum(1).mean())

    for found in drop_layers(encoder, keep, distance):
        told(found)
    card, total = card_of(Path(model)), encoder.num_layers
    note = NOTE.format(
        kept=", ".join(map(str, found.kept)),
        total=total,
        number=len(asked),
        distance=found.distance,
    )
    smaller = without_layers(encoder, found.kept)
    smaller.contract = smaller.contract.model_copy(update={"outputs": None})  # of the whole model
    write_model(smaller, output, card=card and card.rstrip() + note)
    return found


def _unit(encoder: DenseEncoder, texts: list[str]) -> np.ndarray:
    found = encode_texts(encoder, texts, "document").astype(np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: np.ndarray = found / lengths.clip(min=np.finfo(np.float64).tiny)
    return unit
