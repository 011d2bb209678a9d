"""Where each document of a BEIR folder stands on disk, so that training never holds the corpus in memory."""

import re
import sqlite3
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

from embedtrain.data.readers.rows import with_fields
from embedtrain.data.readers.text_lines import open_bytes, parse_object, read_lines
from embedtrain.errors import UserError

SCHEMA = """
CREATE TABLE documents (id TEXT PRIMARY KEY, line INTEGER, start INTEGER) WITHOUT ROWID;
CREATE TABLE queries (id TEXT PRIMARY KEY, line INTEGER, start INTEGER) WITHOUT ROWID;
CREATE TABLE judgments (
    query TEXT, document TEXT, relevance INTEGER, line INTEGER, PRIMARY KEY (query, document)
) WITHOUT ROWID;
"""

RELEVANCE = re.compile(r"[+-]?[0-9]{1,9}")
Table = Literal["documents", "queries"]


class BeirFiles(NamedTuple):
    """The three files of a task."""

    corpus: Path
    queries: Path
    qrels: Path


class Judgments(NamedTuple):
    """A query and its judged documents, each with its relevance, in the order of the qrels file."""

    query_id: str
    documents: list[tuple[str, int]]


class BeirIndex:
    """Ids and byte offsets of documents and queries in a temporary SQLite file, checked as it is built.

    SQLite keeps a database without a name in a private file that vanishes with the connection.
    """

    def __init__(self, files: BeirFiles) -> None:
        self.files = files
        self._database = sqlite3.connect("")
        self._database.executescript(SCHEMA)
        self._insert_texts("documents", files.corpus)
        self._insert_texts("queries", files.queries)
        self._insert_judgments()
        self._refuse_unknown("queries", "query", files.queries)
        self._refuse_unknown("documents", "document", files.corpus)
        self._corpus = open_bytes(files.corpus)
        self._queries = open_bytes(files.queries)

    def __enter__(self) -> "BeirIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self._corpus.close()
        self._queries.close()
        self._database.close()

    def judged_queries(self) -> Iterator[Judgments]:
        """Yield the queries that the qrels name, in the order of ``queries.jsonl``."""
        rows = self._database.execute(
            "SELECT judgments.query, document, relevance FROM judgments "
            "JOIN queries ON queries.id = judgments.query ORDER BY queries.line, judgments.line"
        )
        for query_id, judged in groupby(rows, key=itemgetter(0)):
            yield Judgments(query_id, [(document, relevance) for _, document, relevance in judged])

    def document(self, document_id: str) -> str:
        """Read the text of a document, its title first."""
        return self._text("documents", document_id)

    def query(self, query_id: str) -> str:
        """Read the text of a query."""
        return self._text("queries", query_id)

    def _text(self, table: Table, entry_id: str) -> str:
        path, file = (
            (self.files.corpus, self._corpus)
            if table == "documents"
            else (self.files.queries, self._queries)
        )
        line, start = self._database.execute(
            f"SELECT line, start FROM {table} WHERE id = ?", [entry_id]
        ).fetchone()
        file.seek(start)
        text = parse_entry(f"{path}:{line}", file.readline().decode("utf-8-sig"))[1]
        if not text:
            raise UserError(
                f"{path}:{line}", "is an empty text that the qrels name", cure="Drop its judgments"
            )
        return text

    def _insert_texts(self, table: Table, path: Path) -> None:
        place = ""
        entry_id = ""

        def entries() -> Iterator[tuple[str, int, int]]:
            nonlocal place, entry_id
            for line, start, text in read_lines(path):
                if not text.isspace():
                    place = f"{path}:{line}"
                    entry_id = parse_entry(place, text)[0]
                    yield entry_id, line, start

        try:
            self._database.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", entries())
        except sqlite3.IntegrityError:
            raise UserError(
                place, "has an id that an earlier line has", got=entry_id, cure="Make ids unique"
            ) from None

    def _insert_judgments(self) -> None:
        path = self.files.qrels
        place = ""

        def judgments() -> Iterator[tuple[str, str, int, int]]:
            nonlocal place
            for line, _, text in read_lines(path):
                place = f"{path}:{line}"
                cells = text.rstrip("\r\n").split("\t")
                if not text.isspace() and not (line == 1 and is_header(cells)):
                    yield *parse_judgment(place, cells), line

        try:
            self._database.executemany("INSERT INTO judgments VALUES (?, ?, ?, ?)", judgments())
        except sqlite3.IntegrityError:
            cure = "Keep one of the two lines"
            raise UserError(
                place, "judges a query and document that an earlier line judges", cure=cure
            ) from None

    def _refuse_unknown(self, table: Table, column: str, path: Path) -> None:
        unknown = self._database.execute(
            f"SELECT judgments.line, {column} FROM judgments LEFT JOIN {table} ON {table}.id = {column} "
            f"WHERE {table}.id IS NULL ORDER BY judgments.line LIMIT 1"
        ).fetchone()
        if unknown:
            line, entry_id = unknown
            place = f"{self.files.qrels}:{line}"
            raise UserError(
                place,
                f"names a {column} that {path.name} lacks",
                got=entry_id,
                cure="Drop the line",
            )


def parse_entry(place: str, line: str) -> tuple[str, str]:
    """Read the id and the text, the title first or the span marked, of a line of ``corpus.jsonl`` or ``queries.jsonl``."""
    return read_entry(place, parse_object(place, line))


def read_entry(place: str, entry: dict[str, object]) -> tuple[str, str]:
    """Read what :func:`parse_entry` does, of a row."""
    for name in ("_id", "text"):
        if name not in entry:
            raise UserError(
                place, f"has no column {name!r}", got=list(entry), cure="Use the BEIR names"
            )
    entry_id, text = entry["_id"], entry["text"]
    if isinstance(entry_id, bool) or not isinstance(entry_id, str | int) or entry_id == "":
        raise UserError(f"{place} _id", "must be a text", got=entry_id)
    if not isinstance(text, str):
        raise UserError(f"{place} text", "must be a text", got=text)
    return str(entry_id), with_fields(text, entry, place)


def is_header(cells: list[str]) -> bool:
    """Tell the optional first line of a qrels file, whose last cell is no number."""
    return not cells[-1].strip().lstrip("-").isdigit()


def parse_judgment(place: str, cells: list[str]) -> tuple[str, str, int]:
    """Read (query id, document id, relevance)."""
    if len(cells) != 3:
        cure = "Write query id, document id and relevance, separated by tabs"
        raise UserError(place, f"has {len(cells)} cells instead of 3", got=cells, cure=cure)
    if not RELEVANCE.fullmatch(cells[2].strip()):
        cure = "Write a number such as 0, 1 or 2"
        raise UserError(place, "must end in a whole number, the relevance", got=cells[2], cure=cure)
    return cells[0], cells[1], int(cells[2])
