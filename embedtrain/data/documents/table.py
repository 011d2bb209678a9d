"""Documents that are rows: BEIR corpora, JSON Lines, CSV and Parquet files."""

from collections.abc import Iterator
from pathlib import Path

from embedtrain.data.documents.blocks import normalise
from embedtrain.data.documents.document import Document
from embedtrain.data.readers.rows import Row, text_column
from embedtrain.data.readers.tabular import ROW_READERS
from embedtrain.errors import UserError

TEXT_NAMES = ("text", "content", "document", "passage", "body")
ID_NAMES = ("_id", "id", "document_id", "doc_id")
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


class WithoutTextError(UserError):
    """A table of something else: its first row has no column of text."""


def is_table(path: Path) -> bool:
    """Whether a path is a file of rows, by its name."""
    return _ending(path) in FORMATS and not path.is_dir()


def _ending(path: Path) -> str:
    return (Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix).lower()


def read_rows(name: str, path: Path, part_of: str | None = None) -> Iterator[Document]:
    """Yield the documents of a file of rows; ``name`` is its path inside the corpus.

    A row without an id of its own has the file's name and its number. ``part_of`` is a column whose value goes into
    the metadata under that name.

    Raises:
        WithoutTextError: If the first row has no column of text.
        UserError: If another one has none, or the file cannot be read.
    """
    for number, (place, row) in enumerate(ROW_READERS[FORMATS[_ending(path)]](path), 1):
        cure = f"Call the column of the text one of {', '.join(TEXT_NAMES)}"
        if number == 1 and not {*TEXT_NAMES} & {*row}:
            problem = f"has no column {' or '.join(TEXT_NAMES)}"
            raise WithoutTextError(place, problem, got=sorted(row), cure=cure)
        column = text_column(row, None, TEXT_NAMES, place, cure)
        own = next((row[key] for key in ID_NAMES if row.get(key) not in (None, "")), None)
        title = _text(row, "title", place)
        yield Document(
            id=f"{name}:{number}" if own is None else str(own),
            title=" ".join(normalise(title).split()),
            text=normalise(_text(row, column, place)),
            metadata={} if part_of is None else {"part_of": _owner(row, part_of, place)},
        )


def _owner(row: Row, column: str, place: str) -> str:
    if row.get(column) in (None, ""):
        cure = "Name the column in the recipe: part_of: ..., or leave it out"
        raise UserError(
            place, f"does not say in {column!r} what it is a part of", got=sorted(row), cure=cure
        )
    return str(row[column])


def _text(row: Row, column: str, place: str) -> str:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{place} {column}", "must be a text", got=value, cure="Mend the row")
    return value or ""
