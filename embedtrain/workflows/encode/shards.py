"""Workflow: encode a folder of texts into a folder of vectors, shard by shard, with any number of processes.

Under torchrun each rank takes every n-th shard; they share a file system and need no messages. A shard appears
whole or not at all, so a run that was killed is started again with the same command, also with another number
of processes, and every row is there exactly once.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedtrain.arrays import save_array
from embedtrain.contract.long_inputs import LongInputs
from embedtrain.encoding.cache import model_key
from embedtrain.encoding.shards import current_shard, use_own_device, wait_for
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.files import appearing, check_folder, read_json, write_json
from embedtrain.leftovers import is_empty
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.edits.lengthen import lengthen_encoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.words import column_names
from embedtrain.precision import Precision, choose
from embedtrain.progress import console
from embedtrain.retrieval.sparse.vector_file import save_vectors, save_words
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.stopping import SAME_COMMAND, going_on
from embedtrain.types import Side, TokenVectors
from embedtrain.workflows.encode.chunks import Chunks, open_chunks
from embedtrain.workflows.encode.file import read_owned, read_texts, refuse_more_than_vectors

Format = Literal["npy", "parquet"]
SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".txt", ".parquet")
ROWS_PER_SHARD = 16_384
PLAN, MANIFEST = "plan.json", "manifest.json"


@dataclass(frozen=True)
class Part:
    """Rows of one file that become one shard."""

    number: int
    file: str
    first_row: int
    num_rows: int
    rows_before: int
    """Rows of all parts before it: the number of its first row among all."""


@dataclass(frozen=True)
class Throughput:
    """What this process did; several divide the shards evenly and run side by side."""

    num_rows: int
    """Rows of the whole folder."""
    new_rows: int
    """Of them, encoded by this process now."""
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Rows that this process encoded per second."""
        return self.new_rows / self.seconds if self.new_rows else 0.0


@going_on(SAME_COMMAND)
@owns("output")
def encode_shards(
    model: str,
    texts: Path,
    output: Path,
    *,
    side: Side = "document",
    column: str | None = None,
    instruction: str | None = None,
    form: Format = "npy",
    rows_per_shard: int = ROWS_PER_SHARD,
    long_inputs: LongInputs | None = None,
    precision: Precision = "auto",
) -> Throughput:
    """Encode a file, or all files of a folder in the order of their names, into a folder of shards.

    A dense model gives ``part-00000.npy``, float32 and to be memory-mapped; a late-interaction model one row
    per token with ``part-00000.lengths.npy`` beside it; a sparse one ``part-00000.npz`` for scipy, and
    ``vectors.words.json``. As ``parquet`` a shard has the columns ``row``, the number of the text among all, and
    ``embedding``, or ``indices`` and ``values``. ``manifest.json`` comes last and says that all is there.

    Args, beside those of :func:`embedtrain.workflows.encode.file.encode`:
        texts: A file or a folder of ``.jsonl``, ``.txt`` (a text per line) and ``.parquet`` files.
        output: The folder; what it holds already is kept if it belongs to the same texts and model.
        form: Of the shards.
        rows_per_shard: Texts of a shard at most.
        precision: Part of what the folder belongs to.

    Raises:
        UserError: If a text is not usable, or the folder holds something else.
    """
    start = time.perf_counter()
    use_own_device()
    encoder = lengthen_encoder(load_encoder(model, instruction=instruction), long_inputs)
    refuse_more_than_vectors(encoder)
    check_folder("--output", output)
    shard = current_shard()
    settings: dict[str, object] = {
        "model": model_key(encoder), "side": side, "column": column, "format": form,
        "rows_per_shard": rows_per_shard, "texts": str(texts),
        "precision": choose(precision, encoder.device.type),
    }  # fmt: skip
    if shard.is_first:
        _write_plan(output, settings, texts, column)
    wait_for([output / PLAN])
    parts = _read_plan(output, settings)
    ending = "npz" if form == "npy" and isinstance(encoder, SparseEncoder) else form
    paths = [output / f"part-{part.number:05d}.{ending}" for part in parts]
    files = dict.fromkeys(part.file for part in parts)
    every = (row for file in files for row in read_owned(Path(file), column))
    sources, new_rows = _Texts(column, open_chunks(lambda: every, encoder, side)), 0
    for part, path in zip(parts, paths, strict=True):
        if shard.takes(part.number) and not path.is_file():
            vectors = encode_texts(encoder, sources.rows(part), side, precision=precision)
            _write_shard(vectors, part, path, form)
            new_rows += part.num_rows
    num_rows = sum(part.num_rows for part in parts)
    if shard.is_first:
        wait_for(paths)
        if isinstance(encoder, SparseEncoder):
            save_words(output / "vectors", column_names(encoder))
        content = {"num_rows": num_rows, "dim": encoder.dim, "parts": [path.name for path in paths]}
        write_json(output / MANIFEST, content)
    return Throughput(num_rows, new_rows, time.perf_counter() - start)


class _Texts:
    """Reads parts one after the other; each file is read from its beginning once, ``chunks`` all at first."""

    def __init__(self, column: str | None, chunks: Chunks | None) -> None:
        self.column, self.chunks = column, chunks
        self._file = ""
        self._row = 0
        self._reader: Iterator[str] = iter(())

    def rows(self, part: Part) -> list[str]:
        if self.chunks:
            return list(self.chunks.texts(part.rows_before, part.rows_before + part.num_rows))
        if part.file != self._file or part.first_row < self._row:
            self._file, self._row = part.file, 0
            self._reader = read_texts(Path(part.file), self.column)
        skipped = part.first_row - self._row
        texts = list(islice(self._reader, skipped, skipped + part.num_rows))
        self._row = part.first_row + part.num_rows
        if len(texts) != part.num_rows:
            raise UserError(part.file, "has changed since the work began", cure="Restore it")
        return texts


def _write_plan(output: Path, settings: dict[str, object], texts: Path, column: str | None) -> None:
    """Count the rows of all files and cut them into parts; also checks every row before work starts."""
    if (output / PLAN).is_file():
        return
    if output.is_dir() and not is_empty(output):
        raise UserError(
            "--output", "exists and is not empty", got=str(output), cure="Name another folder"
        )
    files = [texts]
    if texts.is_dir():
        files = sorted(path for path in texts.iterdir() if path.name.endswith(SUFFIXES))
    if not files:
        raise UserError(texts, "holds no texts", cure=f"Expected files of {', '.join(SUFFIXES)}")
    size, before = int(str(settings["rows_per_shard"])), 0
    parts: list[dict[str, object]] = []
    for file in files:
        rows = sum(1 for _ in read_texts(file, column))
        for first in range(0, rows, size):
            num_rows = min(size, rows - first)
            parts.append(asdict(Part(len(parts), str(file), first, num_rows, before)))
            before += num_rows
    sizes = {str(file): file.stat().st_size for file in files}
    content = {"settings": settings, "files": sizes, "parts": parts}
    write_json(output / PLAN, content)


def _read_plan(output: Path, settings: dict[str, object]) -> list[Part]:
    plan = read_json(output / PLAN)
    kept = {"precision": "fp32"} | plan["settings"]  # once it was always that, and not said
    different = [key for key, value in settings.items() if kept.get(key) != value]
    if different:
        raise UserError(
            output,
            f"holds vectors of another {' and '.join(different)}",
            cure="Name another --output or remove the folder",
        )
    for name, size in plan["files"].items():
        if not Path(name).is_file() or Path(name).stat().st_size != size:
            raise UserError(name, "has changed since the work began", cure="Restore it")
    return [Part(**part) for part in plan["parts"]]


def _write_shard(
    found: NDArray[np.float32] | TokenVectors | SparseVectors, part: Part, path: Path, form: Format
) -> None:
    if isinstance(found, SparseVectors):
        if form == "npy":
            save_vectors(path, found)
            return
        with appearing(path) as partial:
            pq.write_table(_sparse_table(found, part.rows_before), partial)
        return
    vectors, lengths = found, None
    if isinstance(found, TokenVectors):
        vectors, lengths = found.values, found.lengths
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if form == "parquet":
        with appearing(path) as partial:
            pq.write_table(_table(vectors, lengths, part.rows_before), partial)
        return
    if lengths is not None:
        save_array(path.with_suffix(".lengths.npy"), lengths)
    save_array(path, vectors)


def _table(
    vectors: NDArray[np.float32], lengths: NDArray[np.int64] | None, first_row: int
) -> pa.Table:
    """Return rows with their number among all; a text of several vectors is a list of lists."""
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    if lengths is not None:
        ends = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
        flat = pa.ListArray.from_arrays(pa.array(ends), flat)
    rows = np.arange(first_row, first_row + len(flat), dtype=np.int64)
    return pa.table({"row": rows, "embedding": flat})


def _sparse_table(vectors: SparseVectors, first_row: int) -> pa.Table:
    """Return rows with their number among all, and lists of words and of their weights."""
    ends = pa.array(vectors.offsets.astype(np.int32))
    rows = np.arange(first_row, first_row + len(vectors), dtype=np.int64)
    columns = {
        name: pa.ListArray.from_arrays(ends, pa.array(values))
        for name, values in (("indices", vectors.indices), ("values", vectors.values))
    }
    return pa.table({"row": rows, **columns})


def report(done: Throughput, output: Path) -> None:
    """Say how fast it went."""
    console.print(
        f"{output}: {done.num_rows:,} rows; process {current_shard().rank + 1} of "
        f"{current_shard().ranks} encoded {done.new_rows:,}, {done.rows_per_second:,.1f} a second"
    )
