"""What is believed of tasks about contexts, and how they are written as rows to score and to train on."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from embedtrain.data.readers.rows import join_title
from embedtrain.data.words import longest_run, num_words, words_of
from embedtrain.mining.identity import text_digest
from embedtrain.synthesis.candidate import Candidate
from embedtrain.synthesis.context_writer import Written
from embedtrain.synthesis.filters import apply, text_tests
from embedtrain.synthesis.row import Row
from embedtrain.synthesis.settings import SynthesisConfig

FEWEST_TEXTS = {"several": 2}
"""That the answer of a kind of task needs; 1 of the others."""
VERDICTS = ("true", "false")


@dataclass(frozen=True)
class ContextRow:
    """A task of a context, and the first filter that took it (``row.taken_by``)."""

    written: Written
    row: Row

    @property
    def name(self) -> str:
        """Follows from context, kind and query: the same in every run."""
        one = self.written
        content = "|".join((one.context.id, one.task, one.found.query))
        return (
            "c-"
            + hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=6).hexdigest()
        )

    def texts(self, *, needed: bool, title: bool) -> list[str]:
        """Return those texts of the context that the answer needs, or the others, as they are searched."""
        return [
            join_title(chunk.title, chunk.text) if title else chunk.text
            for place, chunk in enumerate(self.written.context.chunks, 1)
            if (place in self.written.found.texts) == needed
        ]


def judged(written: Sequence[Written], config: SynthesisConfig, maker: str) -> list[ContextRow]:
    """Return all tasks with what the filters say of them.

    Beside those of queries these are: ``texts``, no such text or too few are named; ``answer``, it is empty, too long, or
    stands in the query, or is no verdict on a claim; ``duplicate``, the query occurred before: an answer is known by it.
    """
    assert config.contexts is not None
    rows = [ContextRow(one, _row(one, maker)) for one in written]
    apply([one.row for one in rows], text_tests(config))
    seen: set[bytes] = set()
    for one in rows:
        key = text_digest(one.written.found.query)
        if one.row.kept:
            one.row.taken_by = _flaw(one.written, config.contexts.answer_words) or (
                "duplicate" if key in seen else ""
            )
        if one.row.kept:
            seen.add(key)
    return rows


def _row(one: Written, maker: str) -> Row:
    chunks = one.context.chunks
    named = [place for place in one.found.texts if 1 <= place <= len(chunks)]
    chunk = chunks[(named or [1])[0] - 1]
    candidate = Candidate(
        one.found.query, chunk.text, chunk.id, chunk.document, maker, one.task, one.slot, one.finish
    )
    return Row(candidate, chunk)


def _flaw(one: Written, most_words: int) -> str:
    found, number = one.found, len(one.context.chunks)
    named = [place for place in found.texts if 1 <= place <= number]
    if len(named) < max(FEWEST_TEXTS.get(one.task, 1), len(found.texts)):
        return "texts"
    answer = words_of(found.answer)
    if not answer or num_words(found.answer) > most_words:
        return "answer"
    if one.task == "claim":
        return "" if found.answer.strip(" .").lower() in VERDICTS else "answer"
    return "answer" if longest_run(answer, words_of(found.query)) == len(answer) else ""


def training_lines(rows: Sequence[ContextRow], *, title: bool) -> Iterator[str]:
    """Yield the rows: a query, the texts that its answer needs, and the others of its context as negatives."""
    for one in rows:
        yield _line(
            query_id=one.name,
            query=one.written.found.query,
            positives=one.texts(needed=True, title=title),
            negatives=one.texts(needed=False, title=title),
            task=one.written.task,
            context=one.written.context.id,
        )


def answer_lines(rows: Sequence[ContextRow]) -> Iterator[str]:
    """Yield each query with its answer, as ``score --answers`` reads them."""
    for one in rows:
        yield _line(query=one.written.found.query, answer=one.written.found.answer)


def candidate_lines(rows: Sequence[ContextRow]) -> Iterator[str]:
    """Yield all that was written, with the first filter that took it."""
    for one in rows:
        texts = [chunk.id for chunk in one.written.context.chunks]
        found = asdict(one.written.found) | {"task": one.written.task, "finish": one.written.finish}
        yield _line(
            _id=one.name, context=one.written.context.id, chunks=texts, **found,
            taken_by=one.row.taken_by,
        )  # fmt: skip


def figures(rows: Sequence[ContextRow]) -> dict[str, dict[str, int]]:
    """Count for each kind of task, and in all, what was written, what each filter took and what is kept."""
    table: dict[str, Counter[str]] = {}
    for one in rows:
        for name in (one.written.task, "all"):
            table.setdefault(name, Counter()).update(("written", one.row.taken_by or "kept"))
    return {name: dict(table[name]) for name in sorted(table, key=lambda name: name == "all")}


def _line(**content: object) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"
