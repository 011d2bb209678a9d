"""JSON Lines, CSV, TSV and Parquet files as streams of examples."""

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from embedtrain.data.examples import Example, Source, SourceConfig, fingerprint_of, limited
from embedtrain.data.given import name_given
from embedtrain.data.readers.rows import Row, RowReader
from embedtrain.data.readers.text_lines import (
    GIVEN,
    count_lines,
    hash_files,
    read_lines,
    read_objects,
    refuse_no_file,
)
from embedtrain.errors import UserError
from embedtrain.outside import reading

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
            yield from reader.examples(row, place)

    content = hash_files(paths)
    if kind == "parquet":
        length, num_lines = limited(sum(map(count_parquet, paths)), config), None
    else:
        length, num_lines = None, limited(sum(map(count_lines, paths)), config)
    place = GIVEN.get(config.path) or name_given(config.path)
    return Source(config, place, fingerprint_of(config, content), stream, length, num_lines)


def read_separated(path: Path, delimiter: str) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) of a CSV file with a header; quoted cells may hold line breaks."""
    csv.field_size_limit(sys.maxsize)  # the default refuses a document of 128 KiB
    lines = (line for _, _, line in read_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begin = 1
    try:
        names = next(reader)
        _refuse_twice(names, f"{path}:1")
        begin = reader.line_num + 1
        for cells in reader:
            place, begin = f"{path}:{reader.line_num}", reader.line_num + 1
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
        # A quote that is never closed takes in all lines to the last.
        raise UserError(
            f"{path}:{begin}",
            f"is not valid CSV ({error})",
            cure="Close each quote, and double those within a cell",
        ) from None


def _refuse_twice(names: list[str], place: str) -> None:
    if len(set(names)) < len(names):
        name = next(name for name, number in Counter(names).items() if number > 1)
        raise UserError(place, "names a column twice", got=name, cure="Rename one of the two")


def read_parquet(path: Path, columns: list[str] | None = None) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) of a Parquet file, all columns or some, a block of rows in memory at a time."""
    from pyarrow.parquet import ParquetFile

    number = 0
    with reading(path):
        refuse_no_file(path)
        with ParquetFile(path, page_checksum_verification=True) as file:
            for block in file.iter_batches(ROWS_PER_BLOCK, columns=columns):
                block.validate(full=True)  # damaged offsets would lead outside of memory
                for row in block.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row


def count_parquet(path: Path) -> int:
    """Return the number of rows that the footer of a Parquet file states."""
    from pyarrow.parquet import read_metadata

    with reading(path):
        refuse_no_file(path)
        return int(read_metadata(path).num_rows)


ROW_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    "jsonl": read_objects,
    "parquet": read_parquet,
    "csv": partial(read_separated, delimiter=","),
    "tsv": partial(read_separated, delimiter="\t"),
}
"""What yields (place, row) of a file, by its format."""
