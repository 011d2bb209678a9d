"""Tokenise a source once and keep it as memory-mapped Arrow files.

The cache is keyed by the content of the source, the tokenizer, the prompts and the lengths: a second start
tokenises nothing, a changed prompt tokenises again. Every distinct text is stored once. Neither building
nor reading needs memory that grows with the source: an SQLite file on disk remembers what was seen.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import count, groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from embedtrain.contract.processes import Tokenise, Tokens, tokenising_processes
from embedtrain.contract.texts import Tokenization
from embedtrain.data.arrow_columns import ArrowColumns, ArrowWriter, length_summary
from embedtrain.data.examples import Example, Source, text_id
from embedtrain.data.guide_texts import guide_texts
from embedtrain.data.seen import Seen
from embedtrain.errors import UserError
from embedtrain.seals import keep_once
from embedtrain.section import Section
from embedtrain.types import Side

FORMAT_VERSION = 5
EXAMPLES_AT_ONCE = 1024
BLOCKS_ALONE = 16
"""Blocks of examples after which other processes help: starting them takes as long as tokenising so many."""
BLOCKS_AHEAD = 16
"""Blocks of queries and of documents that may be read before their tokens are written."""
TEXT_SCHEMA = pa.schema([("id", pa.int64()), ("tokens", pa.list_(pa.int32()))])
KNOWN_SCHEMA = pa.schema([("documents", pa.list_(pa.int64()))])
ROW_SCHEMA = pa.schema(
    [
        ("query", pa.int64()),
        ("positives", pa.list_(pa.int64())),
        ("negatives", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float32())),
        ("teacher_gram", pa.list_(pa.float32())),
        ("guides", pa.list_(pa.int64())),
        ("shares", pa.int64()),
    ]
)


def guide_ids(example: Example, rule: str | None) -> list[int]:
    """Return ids of what a guide reads: for the query, then for each document; none where it reads the row's texts.

    That of a document which it reads as a query is below 0: ``~id``.
    """
    if rule is None:
        return []
    asked, answers = guide_texts(example, rule)
    return [
        text_id(asked),
        *(text_id(text) if side == "document" else ~text_id(text) for side, text in answers),
    ]


class SourceReport(Section):
    """What tokenising found, for `check` and the run folder. Lengths are tokens."""

    fingerprint: str
    num_rows: int
    num_queries: int
    num_documents: int
    query_lengths: tuple[int, ...]
    """10th, 50th, 90th and 99th percentile, and the mean, of a sample of distinct queries."""
    document_lengths: tuple[int, ...]
    query_full_ratio: float
    """Share of distinct queries that reach the limit: they were cut, or just fit."""
    document_full_ratio: float
    held_out: dict[str, int] = Field(default_factory=dict)
    """Rows beside these that validation and evaluation measure on (``fraction``), by section."""


class TokenizedSource:
    """A tokenised source, memory-mapped: rows, and the distinct texts they point to."""

    def __init__(self, folder: Path, place: str) -> None:
        self.place = place
        self.texts: dict[Side, ArrowColumns] = {
            "query": ArrowColumns(folder / "queries.arrow"),
            "document": ArrowColumns(folder / "documents.arrow"),
        }
        self.rows = ArrowColumns(folder / "rows.arrow")
        self._known = ArrowColumns(folder / "known.arrow")
        self.report = SourceReport.model_validate_json((folder / "report.json").read_bytes())

    def __len__(self) -> int:
        return len(self.rows)

    def tokens(self, side: Side, index: int) -> NDArray[np.int32]:
        """Return the token ids of a distinct text."""
        return self.texts[side].row("tokens", index)

    def shares(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a number for each row that is that of rows which share its candidates; -1 where none may."""
        return self.rows.values("shares", rows.tolist())

    def known_positives(self, query: int) -> NDArray[np.int64]:
        """Return the ids of all documents that any row calls positive, or no negative, for this query text."""
        return self._known.row("documents", query)


def tokenize_source(
    source: Source,
    tokenization: Tokenization,
    cache: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> TokenizedSource:
    """Open the cache of ``source``, or build it.

    Raises:
        UserError: If a row is not usable; nothing is left behind then.
    """
    key = "\n".join(
        [
            str(FORMAT_VERSION),
            source.fingerprint,
            tokenization.fingerprint("query"),
            tokenization.fingerprint("document"),
        ]
    )
    folder = cache / "tokenized" / hashlib.sha256(key.encode()).hexdigest()[:32]
    keep_once(folder, lambda building: _Builder(source, tokenization, building).build(progress))
    return TokenizedSource(folder, source.place)


class _Builder:
    """Writes the files of one cache."""

    def __init__(self, source: Source, tokenization: Tokenization, folder: Path) -> None:
        self.source = source
        self.tokenization = tokenization
        self.folder = folder
        self.writers: dict[Side, ArrowWriter] = {
            "query": ArrowWriter(folder / "queries.arrow", TEXT_SCHEMA),
            "document": ArrowWriter(folder / "documents.arrow", TEXT_SCHEMA),
        }
        self.rows = ArrowWriter(folder / "rows.arrow", ROW_SCHEMA)
        self.full: dict[Side, int] = {"query": 0, "document": 0}
        self.num_texts: dict[Side, int] = {"query": 0, "document": 0}
        self.tokenise: Tokenise = lambda texts, side: partial(tokenization, texts, side)
        self.pending: deque[tuple[Side, dict[int, str], Callable[[], Tokens]]] = deque()

    def build(self, progress: Callable[[int], None]) -> None:
        with closing(Seen(self.folder / "seen.sqlite")) as seen, ExitStack() as stack:
            stream = self.source.examples()
            blocks = iter(lambda: list(islice(stream, EXAMPLES_AT_ONCE)), [])
            for number, examples in enumerate(blocks):
                if number == BLOCKS_ALONE:
                    helped = tokenising_processes(self.tokenization, self.source.place)
                    self.tokenise = stack.enter_context(helped)
                self._add(examples, seen)
                self._write_texts(BLOCKS_AHEAD)
                progress(len(examples))
            self._write_texts(0)
            for writer in (*self.writers.values(), self.rows):
                writer.close()
            self._write_known(seen)
        (self.folder / "seen.sqlite").unlink()
        (self.folder / "report.json").write_text(self._report().model_dump_json(), "utf-8")

    def _add(self, examples: Sequence[Example], seen: Seen) -> None:
        asked = [example.query for example in examples]
        queries, _ = self._store("query", asked, seen)
        texts = [text for example in examples for text in example.positives + example.negatives]
        rows, ids = self._store("document", texts, seen)
        known: list[tuple[int, int]] = []
        positives, negatives = [], []
        start = 0
        for example, query in zip(examples, queries, strict=True):
            middle = start + len(example.positives)
            end = middle + len(example.negatives)
            positives.append(rows[start:middle])
            negatives.append(rows[middle:end])
            known += [(query, i) for i in ids[start:middle]]
            known += [(query, text_id(text)) for text in example.not_negatives]
            start = end
        self.rows.extend(
            {
                "query": queries,
                "positives": positives,
                "negatives": negatives,
                "scores": [example.scores for example in examples],
                # Of 32 documents there are 496: as numbers of Python they would take eight times the memory.
                "teacher_gram": [np.array(one.teacher_gram, np.float32) for one in examples],
                "shares": [text_id(one.document) if one.document else -1 for one in examples],
                "guides": [
                    guide_ids(one, self.source.config.columns.guide_text) for one in examples
                ],
            }
        )
        seen.add_known(known)

    def _store(self, side: Side, texts: Sequence[str], seen: Seen) -> tuple[list[int], list[int]]:
        """Return the row and the id of each text; those not seen before are tokenised, and written later."""
        ids = [text_id(text) for text in texts]
        found = seen.rows(side, set(ids))
        new = {i: text for i, text in zip(ids, texts, strict=True) if i not in found}
        rows = dict(zip(new, count(self.num_texts[side]), strict=False))
        self.num_texts[side] += len(new)
        seen.add(side, list(rows.items()))
        self.pending.append((side, new, self.tokenise(list(new.values()), side)))
        found |= rows
        return [found[i] for i in ids], ids

    def _write_texts(self, kept: int) -> None:
        """Write tokenised texts in their order, until so many blocks are left to wait for."""
        while len(self.pending) > kept:
            side, texts, tokens_of = self.pending.popleft()
            length = self.tokenization.contract.length(side)
            tokens = tokens_of()
            lengths = [len(ids) for ids in tokens]
            if 0 in lengths:
                text = list(texts.values())[lengths.index(0)]
                raise UserError(self.source.place, "holds a text without tokens", got=text)
            self.full[side] += sum(number >= length for number in lengths)
            self.writers[side].extend({"id": list(texts), "tokens": tokens})

    def _write_known(self, seen: Seen) -> None:
        """Write the known positives of each query, in the order of the queries."""
        writer = ArrowWriter(self.folder / "known.arrow", KNOWN_SCHEMA)
        of_query = groupby(seen.known(), key=itemgetter(0))
        lists = ([document for _, document in pairs] for _, pairs in of_query)
        while block := list(islice(lists, EXAMPLES_AT_ONCE)):
            writer.extend({"documents": block})
        writer.close()

    def _report(self) -> SourceReport:
        queries, documents = self.writers["query"].num_rows, self.writers["document"].num_rows
        return SourceReport(
            fingerprint=self.source.fingerprint,
            num_rows=self.rows.num_rows,
            num_queries=queries,
            num_documents=documents,
            query_lengths=length_summary(self.folder / "queries.arrow"),
            document_lengths=length_summary(self.folder / "documents.arrow"),
            query_full_ratio=self.full["query"] / max(queries, 1),
            document_full_ratio=self.full["document"] / max(documents, 1),
            held_out=dict(self.source.held_out),
        )
