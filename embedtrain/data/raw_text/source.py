"""A source that makes its rows: documents of files or folders, or bitext, and how many rows came of them."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

from embedtrain.data.documents.document import Document
from embedtrain.data.documents.folder import read_documents
from embedtrain.data.documents.table import is_table, read_rows
from embedtrain.data.documents.underlined import underlined_headings
from embedtrain.data.examples import Example, Source, SourceConfig, fingerprint_of, text_id
from embedtrain.data.given import name_given
from embedtrain.data.raw_text.hashtags import hashtag_rows
from embedtrain.data.raw_text.makers import make_rows
from embedtrain.data.raw_text.mentions import Ontology
from embedtrain.data.raw_text.pivot import pivot_rows
from embedtrain.data.readers.text_lines import GIVEN, hash_files
from embedtrain.data.words import shared_words, words_of
from embedtrain.errors import UserError
from embedtrain.progress import console

NAMES = ("title", "headings")
"""Pairs whose queries name a document, which is none of their use if several have it; all are read twice."""
MUCH = 0.5
"""Mean overlap of words from which on a model learns to compare strings."""
OVERLAPS = 1_000
"""Rows of which the overlap is measured, the first ones."""


def open_raw_text(config: SourceConfig, paths: list[Path], rows: Source | None = None) -> Source:
    """Open a source with ``pairs``.

    Args:
        config: Says which pairs.
        paths: Files of rows, or files or a folder of documents.
        rows: The rows of a bitext, for pairs over a pivot.
    """
    place = GIVEN.get(config.path) or name_given(config.path)
    tables = all(map(is_table, paths))
    if config.part_of is not None and not tables:
        cure = "Drop it, or give files of rows"
        raise UserError("data.sources.part_of", "is a column, and these are no rows", cure=cure)
    kept = (
        []
        if tables or rows is not None
        else [one for path in paths for one in read_documents(path)[0]]
    )

    def made() -> Iterator[list[Example]]:
        """Yield the rows of each document, or of each pivot."""
        if rows is not None:
            return pivot_rows(rows.stream(), config)
        documents = _of_tables(paths, config) if tables else iter(kept)
        if config.pairs == "hashtags":
            return hashtag_rows(documents, config)
        return (make_rows(document, config, ontology) for document in documents)

    content = rows.fingerprint if rows else hash_files(paths) if tables else _hash(kept)
    ontology = None
    if config.names is not None:
        names = Path(config.names).expanduser()
        ontology = Ontology.read(names)
        content += hash_files([names])
    summary = _Summary(place, config)
    return Source(config, place, fingerprint_of(config, content), lambda: summary.counted(made))


def _shared_queries(made: Iterable[list[Example]]) -> set[int]:
    """Return the ids of queries that more than one document has: a section "NAME" of one is not asked for by it."""
    counts = Counter(query for rows in made for query in {_id(row) for row in rows})
    return {query for query, count in counts.items() if count > 1}


def _id(row: Example) -> int:
    return text_id(" ".join(words_of(row.query)))


def _of_tables(paths: Iterable[Path], config: SourceConfig) -> Iterator[Document]:
    """Yield the documents of files of rows; what has no title takes a heading that stands at its beginning."""
    for path in paths:
        rows = read_rows(path.name, path, part_of=config.part_of)
        if config.part_of is None:
            yield from map(_titled, rows)
            continue
        for owner, several in groupby(rows, key=lambda part: part.metadata["part_of"]):
            parts = list(several)
            text = "\n\n".join(part.text for part in parts)
            yield _titled(replace(parts[0], id=owner, text=text))


def _titled(document: Document) -> Document:
    headings = underlined_headings(document.text)
    first = headings[0] if headings else None
    leads = first is not None and not document.text[: first.start].strip()
    if document.title or first is None or not leads:
        return replace(document, headings=headings)
    return replace(document, headings=headings, title=first.text)


def _hash(documents: Iterable[Document]) -> str:
    total = hashlib.sha256()
    for one in documents:
        total.update(json.dumps([one.id, one.title, one.text]).encode())
    return total.hexdigest()


@dataclass
class _Summary:
    """Says once, when all rows were read, how many there are."""

    place: str
    config: SourceConfig
    told: bool = False

    def counted(self, made: Callable[[], Iterator[list[Example]]]) -> Iterator[Example]:
        shared = _shared_queries(made()) if self.config.pairs in NAMES else set()
        num_documents = num_empty = num_rows = 0
        overlaps: list[float] = []
        for of_document in made():
            rows = [row for row in of_document if not shared or _id(row) not in shared]
            num_documents += 1
            num_empty += not rows
            for row in islice(rows, self.config.limit and self.config.limit - num_rows):
                num_rows += 1
                if not row.scores and len(overlaps) < OVERLAPS:  # those with a label go by it
                    overlaps.append(shared_words(row.query, row.positives[0]))
                yield row
            if num_rows == self.config.limit:
                break
        if not self.told and num_rows:
            self.told = True
            self._tell(num_documents, num_empty, num_rows, overlaps)

    def _tell(self, documents: int, empty: int, rows: int, overlaps: list[float]) -> None:
        overlap = sum(overlaps) / len(overlaps) if overlaps else 0.0
        shared = f"; the two texts of a row share {overlap:.0%} of their words" if overlaps else ""
        console.print(
            f"{self.place}: {rows:,} rows ({self.config.pairs}) of {documents:,} documents, {empty:,} of which give "
            f"none{shared}"
        )
        if overlap > MUCH:
            console.print(
                "That is much: training would learn to compare strings. Take what documents share out of them, or "
                "choose other pairs"
            )
