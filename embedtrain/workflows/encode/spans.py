"""Workflow: a model and a file of texts with spans become a vector for every span."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embedtrain.arrays import place_array
from embedtrain.contract.spans import mark
from embedtrain.data.readers.rows import text_column
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.errors import UserError
from embedtrain.files import appearing
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.precision import Precision
from embedtrain.types import Side
from embedtrain.workflows.encode.file import COLUMNS, CURE, write_vectors


@owns("output")
def encode_spans(
    model: str,
    texts: Path,
    output: Path,
    *,
    side: Side = "document",
    column: str | None = None,
    instruction: str | None = None,
    precision: Precision = "auto",
) -> tuple[int, int]:
    """Encode the spans of texts into a ``.npy`` file, in their order, each text once.

    ``.lengths.npy`` beside the output says how many spans each text has.

    Args, beside those of :func:`embedtrain.workflows.encode.file.encode`:
        model: Folder or Hub id of a model with ``spans``.
        texts: ``.jsonl`` or ``.jsonl.gz``; a row has ``spans`` beside its text, a list whose entries are
            ``[start, end]`` or, of several pieces, ``[[start, end], ...]``, in characters.

    Returns:
        Number of spans and dimension.

    Raises:
        UserError: If a row is not usable, with its number, or the model has no vectors for spans.
    """
    counts = np.array([len(spans) for spans in read_spans(texts, column)], dtype=np.int64)
    encoder = load_encoder(model, instruction=instruction)
    if not isinstance(encoder, DenseEncoder) or encoder.contract.spans is None:
        raise UserError(
            "--spans", "needs a model with vectors for spans", got=model, cure="Train one with "
            "model.spans, such as dense/sub_sentence",
        )  # fmt: skip
    total = int(counts.sum())
    every = (marked for spans in read_spans(texts, column) for marked in spans)
    with appearing(output.with_suffix(".lengths.npy")) as partial:
        place_array(partial, counts)
        write_vectors(encoder, every, total, output, side, precision)
    return total, encoder.dim


def read_spans(path: Path, column: str | None) -> Iterator[list[str]]:
    """Yield the marked texts of each row, one for each of its spans."""
    if not path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        raise UserError(
            "--spans", "reads .jsonl only", got=str(path), cure="Write an object per row"
        )
    found = False
    for place, row in read_objects(path):
        text, spans = row[text_column(row, column, COLUMNS, place, CURE)], row.get("spans")
        if not isinstance(text, str):
            raise UserError(place, "holds something other than a text", got=text)
        if not isinstance(spans, list) or not spans:
            raise UserError(
                f"{place} spans", "must be a list of spans", got=spans,
                cure='Write "spans": [[start, end], ...]',
            )  # fmt: skip
        found = True
        yield [mark(text, span, f"{place} spans") for span in spans]
    if not found:
        raise UserError(path, "holds no row", cure="Give a text and its spans")
