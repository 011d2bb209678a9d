"""Tokenise a corpus once and keep its spans as memory-mapped Arrow files.

A span is what one step shows of a document: token ids without special tokens, and where words begin. As in
:mod:`embedtrain.data.tokenized`, the cache is keyed by content, tokenizer and settings, and neither building
nor reading needs memory that grows with the corpus.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedtrain.data.arrow_columns import ArrowColumns, ArrowWriter, length_summary
from embedtrain.data.pretraining.corpus import Corpus
from embedtrain.data.pretraining.words import (
    LONGEST,
    cut_spans,
    find_sentence_starts,
    find_word_starts,
)
from embedtrain.errors import UserError
from embedtrain.seals import keep_once
from embedtrain.section import Section

FORMAT_VERSION = 1
DOCUMENTS_AT_ONCE = 512
SPAN_SCHEMA = pa.schema(
    [
        ("tokens", pa.list_(pa.int32())),
        ("word_starts", pa.list_(pa.int8())),
        ("document", pa.int64()),
    ]
)
DOCUMENT_SCHEMA = pa.schema([("first", pa.int64()), ("count", pa.int64())])

SpanMode = Literal["split", "pack", "truncate", "parallel"]
Tokens = NDArray[np.int32]
Starts = NDArray[np.bool_]


class SpanReport(Section):
    """What tokenising a corpus found, for `check` and the run folder."""

    fingerprint: str
    num_documents: int
    num_empty: int
    """Documents without a token; they are left out."""
    num_spans: int
    num_short: int
    """Spans below ``min_tokens``; they are left out."""
    num_tokens: int
    """Tokens of all spans, special tokens not counted."""
    num_words: int
    span_lengths: tuple[int, ...]
    """10th, 50th, 90th and 99th percentile, and the mean, of a sample of spans."""


class SpanSource:
    """The spans of a corpus, memory-mapped."""

    def __init__(self, folder: Path, place: str) -> None:
        self.place = place
        self.spans = ArrowColumns(folder / "spans.arrow")
        self._documents = ArrowColumns(folder / "documents.arrow")
        self.report = SpanReport.model_validate_json((folder / "report.json").read_bytes())

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def num_documents(self) -> int:
        """Documents of at least two spans."""
        return len(self._documents)

    def span(self, index: int) -> tuple[Tokens, Starts]:
        """Return the tokens of a span and which of them begin a word."""
        tokens = self.spans.row("tokens", index)
        return tokens, self.spans.row("word_starts", index).astype(bool)

    def document(self, index: int) -> tuple[int, int]:
        """Return the first span of a document of at least two, and their number."""
        first, count = (
            int(self._documents.values(name, [index])[0]) for name in ("first", "count")
        )
        return first, count


def tokenize_corpus(
    corpus: Corpus,
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    *,
    size: int,
    mode: SpanMode,
    min_tokens: int,
    cache: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> SpanSource:
    """Open the cache of a corpus, or build it.

    Args:
        corpus: Documents.
        tokenizer: A fast tokenizer.
        size: Tokens of a span at most, special tokens not counted.
        mode: ``split`` cuts each document into spans, ``pack`` lays documents end to end with a separator
            and cuts that, ``truncate`` keeps the first span of each document, ``parallel`` takes documents
            two by two, a text and its translation, and keeps the first span of both.
        min_tokens: Shorter spans are left out.
        cache: Folder that holds one folder per cache.
        progress: Called with the number of documents each time some were tokenised.

    Raises:
        UserError: If the corpus holds no usable text; nothing is left behind then.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for key in ("truncation", "padding", "post_processor"):  # play no part without special tokens
        state.pop(key, None)
    settings = [FORMAT_VERSION, LONGEST, corpus.fingerprint, size, mode, min_tokens, state]
    key = json.dumps(settings, sort_keys=True)
    folder = cache / "spans" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def build(building: Path) -> None:
        _Builder(building, corpus, tokenizer, size, mode, min_tokens).build(progress)

    keep_once(folder, build)
    return SpanSource(folder, corpus.place)


@dataclass
class _Builder:
    """Writes the files of one cache."""

    folder: Path
    corpus: Corpus
    tokenizer: Any
    size: int
    mode: SpanMode
    min_tokens: int

    def __post_init__(self) -> None:
        self.spans = ArrowWriter(self.folder / "spans.arrow", SPAN_SCHEMA)
        self.documents = ArrowWriter(self.folder / "documents.arrow", DOCUMENT_SCHEMA)
        self.counts = dict.fromkeys(("documents", "empty", "short", "tokens", "words"), 0)
        self.pending: list[tuple[Tokens, Starts]] = []

    def build(self, progress: Callable[[int], None]) -> None:
        documents = self.corpus.documents()
        while block := list(islice(documents, DOCUMENTS_AT_ONCE)):
            self._add([text for _, text in block])
            progress(len(block))
        if self.pending:
            self._cut_pending(0)
        self.spans.close()
        self.documents.close()
        if self.spans.num_rows == 0:
            raise UserError(
                self.corpus.place,
                f"holds no text of at least {self.min_tokens} tokens",
                got=f"{self.counts['documents']} documents, {self.counts['empty']} of them empty",
                cure="Give more text or lower data.min_tokens",
            )
        (self.folder / "report.json").write_text(self._report().model_dump_json(), "utf-8")

    def _add(self, texts: list[str]) -> None:
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()  # left over from another call
        backend.no_padding()
        encodings = backend.encode_batch(texts, add_special_tokens=False)
        if self.mode == "parallel":
            for place in range(0, len(texts), 2):
                self._add_pair(texts[place : place + 2], encodings[place : place + 2])
            return
        for text, encoding in zip(texts, encodings, strict=True):
            self.counts["documents"] += 1
            if not encoding.ids:
                self.counts["empty"] += 1
                continue
            tokens = np.array(encoding.ids, dtype=np.int32)
            starts = find_word_starts(encoding, text)
            if self.mode == "pack":
                self._pack(tokens, starts)
                continue
            spans = cut_spans(len(tokens), self.size, starts, find_sentence_starts(encoding, text))
            if self.mode == "truncate":
                spans = spans[:1]
            self._write([(tokens[begin:end], starts[begin:end]) for begin, end in spans])

    def _add_pair(self, texts: list[str], encodings: list[Any]) -> None:
        """Write a text and its translation as a document of two spans, if both are long enough."""
        self.counts["documents"] += 1
        if not all(encoding.ids for encoding in encodings):
            self.counts["empty"] += 1
            return
        spans = []
        for text, encoding in zip(texts, encodings, strict=True):
            tokens = np.array(encoding.ids, dtype=np.int32)
            starts = find_word_starts(encoding, text)
            sentences = find_sentence_starts(encoding, text)
            begin, end = cut_spans(len(tokens), self.size, starts, sentences)[0]
            spans.append((tokens[begin:end], starts[begin:end]))
        short = sum(len(tokens) < self.min_tokens for tokens, _ in spans)
        self.counts["short"] += short
        if not short:
            self._write(spans)

    def _write(self, spans: list[tuple[Tokens, Starts]]) -> None:
        """Write the spans of one document that are long enough."""
        kept = [span for span in spans if len(span[0]) >= self.min_tokens]
        self.counts["short"] += len(spans) - len(kept)
        document = self.counts["documents"] - 1
        rows = []
        for tokens, starts in kept:
            row = {"tokens": tokens, "word_starts": starts.astype(np.int8), "document": document}
            rows.append(self.spans.append(row))
            self.counts["tokens"] += len(tokens)
            self.counts["words"] += int(starts.sum())
        if len(rows) > 1:
            self.documents.append({"first": rows[0], "count": len(rows)})

    def _pack(self, tokens: Tokens, starts: Starts) -> None:
        """Add a document and a separator to the pending ones; write as many full spans as there are."""
        separator = self.tokenizer.sep_token_id or self.tokenizer.eos_token_id
        if separator is not None:
            tokens = np.append(tokens, np.int32(separator))
            starts = np.append(starts, True)
        self.pending.append((tokens, starts))
        if sum(len(held) for held, _ in self.pending) >= self.size:
            self._cut_pending(self.size)

    def _cut_pending(self, kept: int) -> None:
        """Write full spans until fewer than ``kept`` tokens are left, or all if that is 0."""
        tokens = np.concatenate([held for held, _ in self.pending])
        starts = np.concatenate([held for _, held in self.pending])
        nowhere = np.zeros(0, dtype=np.int64)
        *full, last = cut_spans(len(tokens), self.size, starts, nowhere)
        for begin, end in [*full, last] if kept == 0 else full:
            self._write([(tokens[begin:end], starts[begin:end])])
        self.pending = [] if kept == 0 else [(tokens[last[0] :], starts[last[0] :])]

    def _report(self) -> SpanReport:
        return SpanReport(
            fingerprint=self.corpus.fingerprint,
            num_documents=self.counts["documents"],
            num_empty=self.counts["empty"],
            num_spans=self.spans.num_rows,
            num_short=self.counts["short"],
            num_tokens=self.counts["tokens"],
            num_words=self.counts["words"],
            span_lengths=length_summary(self.folder / "spans.arrow"),
        )
