"""The documents that are loaded: an id, a text, and all else that a row says."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from embedtrain.data.readers.rows import join_title, text_column
from embedtrain.data.readers.tabular import read_parquet
from embedtrain.data.readers.text_lines import read_lines, read_objects
from embedtrain.errors import UserError
from embedtrain.workflows.encode.file import CURE, DOCUMENT_COLUMNS
from embedtrain.workflows.prepare import load_task

IDS = ("_id", "id")
"""Columns of ids, in this order; a row without any is named by its number."""
PYTHON_DOCS = "python_docs"


@dataclass(frozen=True)
class Entry:
    """A document of the corpus."""

    id: str
    text: str
    """As the model reads it: the title first."""
    metadata: dict[str, Any]

    def hash(self, models: str) -> str:
        """Return a hash of all that a collection keeps of it."""
        content = json.dumps([models, self.text, self.metadata], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read_corpus(corpus: str, column: str | None = None) -> Iterator[Entry]:
    """Yield the documents of a BEIR folder, of ``python_docs``, or of a ``.jsonl``, ``.parquet`` or text file.

    Raises:
        UserError: If a row is not usable, with its number.
    """
    if corpus == PYTHON_DOCS:
        task = load_task(corpus, "test")
        for one, text in zip(task.document_ids, task.documents, strict=True):
            yield Entry(one, text, {})
        return
    path = Path(corpus).expanduser()
    path = path / "corpus.jsonl" if path.is_dir() else path
    if path.suffix == ".parquet":
        rows: Iterator[tuple[str, Mapping[str, Any]]] = read_parquet(path)
    elif path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        rows = read_objects(path)
    else:
        rows = ((f"{path}:{number}", {"text": line}) for number, _, line in read_lines(path))
    for number, (place, row) in enumerate(rows, 1):
        yield _entry(place, number, row, column)


def _entry(place: str, number: int, row: Mapping[str, Any], column: str | None) -> Entry:
    key = text_column(row, column, DOCUMENT_COLUMNS, place, CURE)
    text = row[key]
    if not isinstance(text, str):
        raise UserError(place, "holds something other than a text", got=text, cure="Correct it")
    name = next((name for name in IDS if row.get(name) is not None), None)
    found = number if name is None else row[name]
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise UserError(f"{place} {name}", "must be a text or a whole number", got=found)
    metadata = {one: value for one, value in row.items() if one not in (key, name)}
    inner = metadata.pop("metadata", None)  # as BEIR writes them
    if isinstance(inner, dict):
        metadata = inner | metadata
    elif inner is not None:
        metadata["metadata"] = inner
    title = row.get("title") if key == "text" else None
    joined = join_title(title if isinstance(title, str) else None, text)
    return Entry(str(found), joined, _plain(place, metadata))


def _plain(place: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata as JSON has it; Parquet has dates."""
    try:
        written = json.dumps(metadata, default=str, allow_nan=False)
    except ValueError:
        cure = "Write null, or leave it out"
        raise UserError(
            f"{place} metadata", "holds NaN or Infinity, which is no JSON", cure=cure
        ) from None
    plain: dict[str, Any] = json.loads(written)
    return plain


def count_corpus(corpus: str, column: str | None) -> int:
    """Read the corpus once, so that a mistake shows before any work, and count its documents.

    Raises:
        UserError: If there is none, a row is not usable, or two have one id.
    """
    seen: set[int] = set()
    for number, entry in enumerate(read_corpus(corpus, column), 1):
        seen.add(int.from_bytes(hashlib.blake2b(entry.id.encode(), digest_size=8).digest()))
        if len(seen) < number:
            raise UserError(
                f"{corpus} document {number:,}", "has the id of an earlier one", got=entry.id,
                cure="Make ids unique: the later one would take the earlier one's place",
            )  # fmt: skip
    if not seen:
        raise UserError(corpus, "holds no document", cure="Give at least one")
    return len(seen)


def slices_of(entries: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    """Yield so many documents at a time."""
    while some := list(islice(entries, size)):
        yield some
