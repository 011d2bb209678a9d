"""JSON Lines, CSV, TSV and Parquet files as streams of examples."""

import csv
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from embedtrain.data.examples import Example, Source, SourceConfig, fingerprint_of, limited
from embedtrain.data.given import name_given
from embedtrain.data.readers.rows import Row, RowReader
from embedtrain.data.readers.text_lines import GIVEN, hash_files, read_lines, read_objects
from embedtrain.errors import UserError

ROWS_PER_BLOCK = 1024


def open_files(config: SourceConfig, paths: list[Path]) -> Source:
    """Open files of one format, read one after the other in the order given."""
    kind = config.format
    reader = RowReader(config.columns, kind in {"csv", "tsv"}, config.score_range)

    def rows() -> Iterator[tuple[str, Row]]:
        for path in paths:
            yield from ROW_READERS[str(kind)](path)

    def stream() -> Iterator[Example]:
        for place, row in rows():
            yield reader.read(row, place)

    content = hash_files(paths)
    length = limited(sum(map(count_parquet, paths)), config) if kind == "parquet" else None
    place = GIVEN.get(config.path) or name_given(config.path)
    return Source(config, place, fingerprint_of(config, content), stream, length)


def read_separated(path: Path, delimiter: str) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) of a CSV file with a header; quoted cells may hold line breaks."""
    csv.field_size_limit(sys.maxsize)  # the default refuses a document of 128 KiB
    lines = (line for _, _, line in read_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        names = next(reader)
        for cells in reader:
            place = f"{path}:{reader.line_num}"
            if len(cells) == len(names):
                yield place, dict(zip(names, cells, strict=True))
            elif cells:
                cure = "Quote cells that hold the separator, or name the format in the recipe"
                raise UserError(
                    place,
                    f"has {len(cells)} cells under {len(names)} columns",
                    got=cells,
                    cure=cure,
                )
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}", f"is not valid CSV ({error})") from None


def read_parquet(path: Path, columns: list[str] | None = None) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) of a Parquet file, all columns or some, a block of rows in memory at a time."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for block in file.iter_batches(ROWS_PER_BLOCK, columns=columns):
                for row in block.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except pyarrow.ArrowInvalid as error:
        raise UserError(
            path, f"is not valid Parquet ({error})", cure="Write the file again"
        ) from None


def count_parquet(path: Path) -> int:
    """Return the number of rows that the footer of a Parquet file states."""
    import pyarrow
    from pyarrow.parquet import read_metadata

    try:
        return int(read_metadata(path).num_rows)
    except pyarrow.ArrowInvalid as error:
        raise UserError(
            path, f"is not valid Parquet ({error})", cure="Write the file again"
        ) from None


ROW_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    "jsonl": read_objects,
    "parquet": read_parquet,
    "csv": partial(read_separated, delimiter=","),
    "tsv": partial(read_separated, delimiter="\t"),
}
"""What yields (place, row) of a file, by its format."""
