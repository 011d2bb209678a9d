"""Workflow: a model and a file of texts become a file of vectors."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.arrays import new_array, place_array, save_rows
from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.contract.long_inputs import LongInputs
from embedtrain.data.readers.rows import POSITIVE_NAMES, QUERY_NAMES, Row, text_column
from embedtrain.data.readers.tabular import read_parquet
from embedtrain.data.readers.text_lines import read_lines, read_objects, refuse_no_file
from embedtrain.encoding.cache import tell_of_zeros
from embedtrain.encoding.texts import encode_blocks, fill, sparse_block
from embedtrain.errors import UserError
from embedtrain.files import appearing
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.late_chunking import LateChunkEncoder, chunk_late
from embedtrain.models.edits.lengthen import lengthen_encoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.words import column_names
from embedtrain.outside import reading
from embedtrain.precision import Precision
from embedtrain.progress import progress_bar
from embedtrain.retrieval.compression import pack_codes
from embedtrain.retrieval.sparse.vector_file import ENDINGS, save_vectors, save_words
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Embeddings, Format, Side, TokenEmbeddings
from embedtrain.workflows.encode.chunks import Row as Owned
from embedtrain.workflows.encode.chunks import open_chunks
from embedtrain.workflows.stored import TRAINED, trained_format

COLUMNS = (
    "text",
    "query",
    "document",
    "positive",
    "sentence",
    "content",
    *QUERY_NAMES,
    *POSITIVE_NAMES,
)
"""Looked for in this order where the user names no column."""
DOCUMENT_COLUMNS = ("text", *POSITIVE_NAMES, *COLUMNS)
"""The same, where documents are wanted: of training rows those are the positives."""
CURE = "Name it with --column"
FILES = (".npy", *ENDINGS)
"""Endings of files of vectors."""


@owns("output")
def encode(
    model: str,
    texts: Path,
    output: Path,
    *,
    side: Side = "document",
    column: str | None = None,
    instruction: str | None = None,
    long_inputs: LongInputs | None = None,
    late_chunks: int | None = None,
    precision: Precision = "auto",
    quantize: Format | Literal["trained"] | None = None,
) -> tuple[int, int]:
    """Encode a file of texts into a ``.npy`` file, rows in the order of the input, float32.

    Memory does not grow with the file: texts are read, encoded and written block by block. A late-interaction
    model gives one row per token; ``.lengths.npy`` beside the output then says how many each text has. A sparse
    model fills an ``.npz`` or a ``.safetensors`` file, see :mod:`embedtrain.retrieval.sparse.vector_file`; what is
    not 0 of all texts is in memory then.

    Args:
        model: Model folder, run's ``model/`` or Hub id.
        texts: ``.jsonl`` or ``.jsonl.gz``, an object per line, or ``.parquet``; any other file holds a text
            per line. For a model with ``in_context`` rows also name the ``document`` that they are a chunk of.
        output: The file to write; it appears whole or not at all.
        side: Whose prompt and length to use.
        column: Key of the text; None looks for the usual ones.
        instruction: Name of one of the model's, whose prompts take the place of the usual ones.
        long_inputs: How documents may be longer than the model was trained on.
        late_chunks: Tokens of a chunk, where a document gets a row per chunk; ``.lengths.npy`` says how many,
            ``.chunks.jsonl`` where they stand.
        precision: What the network computes in; the file is float32 all the same.
        quantize: Write codes of vectors of length 1 (:func:`embedtrain.retrieval.compression.pack_codes`), ``trained`` those
            that the model was trained for; of a sparse model, ``int8``, a byte for each weight.

    Returns:
        Number of texts and dimension.

    Raises:
        UserError: If a line is not usable, with its number.
    """
    if output.suffix not in FILES:
        problem = f"must end in {', '.join(FILES)}"
        raise UserError("--output", problem, got=str(output), cure="Rename it")
    # Counting also checks every line before the work starts.
    total = sum(1 for _ in read_texts(texts, column))
    longer = lengthen_encoder(load_encoder(model, instruction=instruction), long_inputs)
    encoder = chunk_late(longer, late_chunks)
    kind = trained_format("--quantize", encoder) if quantize == TRAINED else quantize
    chunks = open_chunks(lambda: read_owned(texts, column), encoder, side)
    check_ending(encoder, output, kind)
    if isinstance(encoder, SparseEncoder):
        with progress_bar(f"Encoding {texts.name}", total) as advance:
            source = read_texts(texts, column)
            blocks = encode_blocks(encoder, source, side, precision=precision, progress=advance)
            vectors = SparseVectors.joined([sparse_block(block) for block in blocks])
        tell_of_zeros(vectors, side)
        save_vectors(output, vectors, as_bytes=kind is not None)
        save_words(output, column_names(encoder))
        return total, encoder.dim
    if not isinstance(encoder, DenseEncoder):
        _encode_tokens(encoder, texts, output, side, column, total, precision)
        return total, encoder.dim
    source = chunks.texts() if chunks else read_texts(texts, column)
    write_vectors(encoder, source, total, output, side, precision, kind)
    return total, encoder.dim


def check_ending(encoder: TextEncoder, output: Path, quantize: Format | None = None) -> None:
    """Refuse a file that cannot hold the vectors of a model.

    Raises:
        UserError: If its ending is that of another kind of vectors, or they are not stored so.
    """
    is_sparse = isinstance(encoder, SparseEncoder)
    if is_sparse != (output.suffix in ENDINGS):
        wanted = " or ".join(ENDINGS) if is_sparse else ".npy"
        problem = f"must end in {wanted} for the vectors of this model"
        raise UserError("--output", problem, got=str(output), cure="Rename it")
    if quantize is None:
        return
    if is_sparse:
        if quantize != "int8":
            raise UserError("--quantize", "of a sparse model is int8", got=quantize)
    elif not isinstance(encoder, DenseEncoder) or encoder.contract.similarity != "cosine":
        problem = "is for sparse models, and for one vector of length 1 per text"
        cure = "Store them smaller where they are searched: --index"
        raise UserError("--quantize", problem, got=quantize, cure=cure)


def write_vectors(
    encoder: DenseEncoder,
    texts: Iterable[str],
    total: int,
    output: Path,
    side: Side,
    precision: Precision = "auto",
    quantize: Format | None = None,
) -> None:
    """Encode so many texts, block by block, into a file of floats or codes that appears whole or not at all."""
    shape, kind = (total, encoder.dim_of(side)), np.dtype(np.float32)
    if quantize is not None:
        one = pack_codes(np.ones((1, shape[1]), np.float32), quantize)
        shape, kind = (total, one.shape[1]), one.dtype
    with (
        appearing(output) as partial,
        progress_bar(f"Encoding for {output.name}", total) as advance,
    ):
        array = new_array(partial, kind, shape)
        source = islice(texts, total)
        blocks = encode_blocks(encoder, source, side, precision=precision, progress=advance)
        if quantize is not None:
            blocks = (_coded(block, quantize) for block in blocks)
        fill(array, blocks, threaded=encoder.device.type == "cuda")


def _coded(block: Embeddings, quantize: Format) -> Tensor:
    assert isinstance(block, Tensor)
    return torch.from_numpy(pack_codes(block.numpy(), quantize))


def _encode_tokens(
    encoder: TextEncoder,
    texts: Path,
    output: Path,
    side: Side,
    column: str | None,
    total: int,
    precision: Precision,
) -> None:
    """Write the vectors of all texts end to end, and beside them ``.lengths.npy``, how many each text has."""
    refuse_more_than_vectors(encoder)
    lengths: list[NDArray[np.int64]] = []
    with (
        appearing(output) as partial,
        appearing(output.with_suffix(".lengths.npy")) as counts,
        progress_bar(f"Encoding {texts.name}", total) as advance,
    ):

        def blocks() -> Iterator[NDArray[np.float32]]:
            source = read_texts(texts, column)
            for found in encode_blocks(
                encoder, source, side, precision=precision, progress=advance
            ):
                assert isinstance(found, TokenEmbeddings)
                lengths.append(found.lengths.numpy())
                yield found.tokens.numpy()

        save_rows(partial, blocks(), encoder.dim)
        place_array(counts, np.concatenate(lengths))
        if isinstance(encoder, LateChunkEncoder):
            write_chunk_spans(encoder, read_texts(texts, column), output)


def refuse_more_than_vectors(encoder: TextEncoder, place: str = "--output") -> None:
    """Refuse a model whose texts are more than their token vectors, which is all that an array holds."""
    contract = encoder.contract
    if isinstance(contract, LateInteractionContract) and (contract.cls_dim or contract.exact_match):
        raise UserError(
            place,
            "cannot hold the vectors of a model that also has word ids or a vector per text",
            cure="Use `embedtrain search` or `embedtrain evaluate`, which keep them together",
        )


def read_texts(path: Path, column: str | None, known: tuple[str, ...] = COLUMNS) -> Iterator[str]:
    """Yield the texts of a file: of its column, or of the first of those ``known`` that it has."""
    return (text for text, _ in read_owned(path, column, known))


def read_owned(path: Path, column: str | None, known: tuple[str, ...] = COLUMNS) -> Iterator[Owned]:
    """Yield the texts of a file, each with the ``document`` that its row says it is a chunk of."""
    if path.suffix == ".parquet":
        rows = _parquet_rows(path, column, known)
    elif path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        rows = read_objects(path)
    else:
        for number, _, line in read_lines(path):
            yield _checked(line.rstrip("\r\n"), f"{path}:{number}"), None
        return
    for place, row in rows:
        key = text_column(row, column, known, place, CURE)
        title = row.get("title") if key == "text" else None  # as in a BEIR corpus
        owner = row.get("document") if key != "document" else None
        yield _checked(row[key], place, title), None if owner is None else str(owner)


def _parquet_rows(
    path: Path, column: str | None, known: tuple[str, ...]
) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) with those columns that may be wanted."""
    with reading(path):
        refuse_no_file(path)
        names = pq.read_schema(path).names
    key = text_column(dict.fromkeys(names), column, known, str(path), CURE)
    beside = ["title"] * (key == "text") + ["document"] * (key != "document")
    return read_parquet(path, [key, *(name for name in beside if name in names)])


def _checked(text: object, place: str, title: object = None) -> str:
    if not isinstance(text, str):
        raise UserError(place, "holds something other than a text", got=text, cure="Correct it")
    joined = f"{title} {text}".strip() if isinstance(title, str) else text
    if not joined.strip():
        raise UserError(place, "holds an empty text", got=text, cure="Remove the line")
    return joined


def write_chunk_spans(encoder: LateChunkEncoder, texts: Iterable[str], vectors: Path) -> Path:
    """Write ``.chunks.jsonl`` beside a file of vectors: a line per vector, in their order.

    ``text`` is the number of the text, from 0; ``start`` and ``end`` are characters of it, title included.
    """
    path = vectors.with_suffix(".chunks.jsonl")
    with appearing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            for start, end in encoder.chunk_spans(text):
                file.write(json.dumps({"text": number, "start": start, "end": end}) + "\n")
    return path
