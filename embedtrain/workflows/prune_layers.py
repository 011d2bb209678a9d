"""Workflow: a model loses the layers, heads and columns that its vectors of some texts miss the least: to distil from."""

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
from embedtrain.models.edits.prune_layers import check_layers, drop_layers, without_layers
from embedtrain.models.edits.prune_width import Kind, check_width, narrow_layers, sizes
from embedtrain.release.export import card_of, write_model
from embedtrain.workflows.encode.file import DOCUMENT_COLUMNS, read_texts

TEXTS = 500
"""Texts that are encoded for each layer that is tried."""
NOTE = """

## {heading}

{left}, those that vectors of {number:,} texts miss the most: without the others these move by a mean squared distance of
{distance:.3f} (two that have nothing in common are 2 apart). It is a start for training, as `distill/leaf` does. Scores above are
of the model that it was made of.
"""


@owns("output")
def prune_layers(
    model: str,
    texts: Path,
    output: Path,
    keep: int | None,
    *,
    heads: int | None = None,
    columns: int | None = None,
    column: str | None = None,
    limit: int = TEXTS,
    told: Callable[[str], None] = lambda _: None,
) -> tuple[int, ...] | None:
    """Write a model that keeps some of its layers, or of the heads and the feed-forward columns of each.

    Layers go one by one, each time the one without which vectors of length 1 lie nearest to those of the whole
    model, in mean squared distance. Then each layer loses as many heads, and as many columns, by
    :mod:`embedtrain.models.edits.prune_width`.

    Args:
        model: A dense model: a folder or a Hub id.
        texts: A file as ``embedtrain encode`` reads it.
        output: Folder to write; must not exist.
        keep: Layers that stay; None for all.
        heads: Attention heads that stay in each; None for all.
        columns: Feed-forward columns that stay in each; None for all.
        column: Key of the text, where the file is a table.
        limit: Texts at most, the first ones.
        told: Called with a line after each choice.

    Returns:
        The layers that stay, counted from 1; None for all.

    Raises:
        UserError: If the model has none of these to lose, its config cannot say so, or the file holds no text.
    """
    refuse_existing(output)
    encoder = load_encoder(model)
    if not isinstance(encoder, DenseEncoder):
        raise UserError(model, "has several vectors per text", cure="Name a dense model")
    check_layers(encoder, keep)
    wishes: dict[Kind, int | None] = {"heads": heads, "columns": columns}
    narrow = {kind: number for kind, number in wishes.items() if number is not None}
    for kind, number in narrow.items():
        check_width(encoder, kind, number)
    asked = list(islice(read_texts(texts, column, DOCUMENT_COLUMNS), limit))
    if not asked:
        raise UserError(texts, "holds no text", cure="Give some hundreds")
    smaller, kept, moved, whole = encoder, None, 0.0, _unit(encoder, asked)

    def distance(found: DenseEncoder) -> float:
        return float(np.square(_unit(found, asked) - whole).sum(1).mean())

    for found in drop_layers(encoder, keep, distance) if keep is not None else ():
        told(found.line)
        kept, moved = found.kept, found.distance
    if kept is not None:
        smaller = without_layers(encoder, kept)
    for kind, number in narrow.items():
        smaller, lost = narrow_layers(smaller, kind, number, asked, distance)
        told(lost.line)
        moved = lost.distance
    smaller.contract = smaller.contract.model_copy(update={"outputs": None})  # of the whole model
    card = card_of(Path(model))
    note = _note(encoder, kept, narrow, moved, len(asked))
    write_model(smaller, output, card=card and card.rstrip() + note)
    return kept


def _note(
    whole: DenseEncoder, kept: tuple[int, ...] | None, narrow: dict[Kind, int], distance: float, number: int
) -> str:  # fmt: skip
    """Return what the card says of what is left."""
    left = []
    if kept is not None:
        left.append(f"Layers {', '.join(map(str, kept))} of {whole.num_layers} stayed")
    left += [
        f"{number} {kind} of {sizes(whole, kind)[1]} in each layer stayed"
        for kind, number in narrow.items()
    ]
    heading = "Narrower layers" if narrow else "Fewer layers"
    return NOTE.format(heading=heading, left="; ".join(left), number=number, distance=distance)


def _unit(encoder: DenseEncoder, texts: list[str]) -> np.ndarray:
    found = encode_texts(encoder, texts, "document").astype(np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: np.ndarray = found / lengths.clip(min=np.finfo(np.float64).tiny)
    return unit
