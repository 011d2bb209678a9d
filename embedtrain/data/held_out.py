"""Validation and test from the training data itself: what is measured on leaves training whole.

No held-out query, none of its positives and no other query of such a positive is left in training, not even
as a negative; ``by`` query only the query itself is not. See :mod:`embedtrain.data.linked_texts`.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from embedtrain.data.examples import Example, Source
from embedtrain.data.gram import part_of
from embedtrain.data.linked_texts import By, LinkedTexts, is_judged_pair, node_of
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.errors import UserError
from embedtrain.seals import keep_once

VERSION = "1"
MIN_QUERIES = 10
"""Fewer held-out queries measure nothing."""
CORPUS = 2_000
"""Documents that are searched, where the recipe does not say."""
CANDIDATES = 8
"""Documents kept in mind for each one that joins the corpus: some turn out to be held out."""
PERCENTS = range(5, 21)
"""Shares of the queries to choose from where a fraction is proposed: the smallest that is enough."""
TRAINING = "training"
"""What is left, beside the names of the parts."""


@dataclass(frozen=True)
class Part:
    """What a recipe asks for: ``name`` is its section, ``num_documents`` the size of the corpus."""

    name: str
    fraction: float
    num_documents: int = CORPUS


@dataclass(frozen=True)
class HeldOut:
    """The sources without their held-out rows, and a task for each part, by its name."""

    sources: list[Source]
    tasks: dict[str, RetrievalTask]
    summary: list[str]
    """What was held out, a sentence for each part."""


def hold_out(
    sources: Sequence[Source],
    parts: Sequence[Part],
    cache: Path,
    progress: Callable[[int], None] = lambda _: None,
    by: By = "answer",
) -> HeldOut:
    """Split sources by groups of linked texts; the split is kept in the cache.

    ``by`` query, what answers a held-out query may answer other queries in training.

    Needs about 100 bytes of memory a row while it is made. All rows are read twice.

    Raises:
        UserError: If a part would have too few queries to measure on.
    """
    asked = json.dumps([VERSION, [asdict(part) for part in parts], *([by] * (by == "query"))])
    key = hashlib.sha256("\n".join([asked, *(s.fingerprint for s in sources)]).encode()).hexdigest()
    build = partial(_build, sources, parts, key, progress, by)
    folder = keep_once(cache / "held_out" / key[:32], build)
    stored = json.loads((folder / "split.json").read_text("utf-8"))
    texts = {name: frozenset(ids) for name, ids in stored["texts"].items()}
    name = "+".join(dict.fromkeys(Path(source.config.path).stem for source in sources))
    tasks = {part: RetrievalTask(name, **task) for part, task in stored["tasks"].items()}
    left = [
        replace(
            source,
            fingerprint=hashlib.sha256(f"{source.fingerprint}\n{key}".encode()).hexdigest(),
            stream=partial(_training_rows, source, texts),
            length=rows[TRAINING],
            held_out={part.name: rows[part.name] for part in parts},
        )
        for source, rows in zip(sources, stored["rows"], strict=True)
    ]
    return HeldOut(left, tasks, [_describe(part, tasks[part.name], stored, by) for part in parts])


def sufficient_fraction(
    examples: Collection[Example], num_parts: int, *, is_whole: bool
) -> float | None:
    """Propose a fraction that holds out enough queries for each of ``num_parts`` parts; None if none does.

    Args:
        examples: All rows, or the first ones.
        num_parts: Validation and evaluation are two.
        is_whole: Whether these are all rows. Where they are not, the rest may be linked a little otherwise:
            a part then has room to spare.
    """
    links, documents = LinkedTexts(0), set[int]()
    for example in examples:
        links.add(example)
        documents.update(map(node_of, example.positives))
    asked = {node_of(e.query) for e in examples if not is_judged_pair(e)} - documents
    if not asked:
        return None
    for percent in PERCENTS:
        fraction = percent / 100
        parts = links.hold_out([fraction if is_whole else 0.8 * fraction] * num_parts)
        if all(len(asked.intersection(nodes)) >= MIN_QUERIES for nodes in parts):
            return fraction
    return None


def _describe(part: Part, task: RetrievalTask, stored: Mapping[str, Any], by: By) -> str:
    rows = sum(counts[part.name] for counts in stored["rows"])
    return (
        f"{part.name}.fraction {part.fraction:g} keeps {len(task.queries):,} of "
        f"{stored['num_queries']:,} queries ({rows:,} rows) out of training"
        + ", with every document that answers one of them" * (by == "answer")
        + f"; they are searched for among {len(task.documents):,} documents"
    )


def _training_rows(source: Source, held: Mapping[str, frozenset[int]]) -> Iterator[Example]:
    """Yield what is left of a source: rows and negatives without held-out texts."""
    for example in source.examples():
        if left := _left_of(example, held):
            yield left


def _left_of(example: Example, held: Mapping[str, frozenset[int]]) -> Example | None:
    """Return a row without its held-out negatives; None if it is held out or had no other negative.

    Out is as well what a held-out query answers, as in rows of two texts that mean the same.
    """
    if any(_part_of(node_of(text), held) for text in (example.query, *example.positives)):
        return None
    kept = [_part_of(node_of(text), held) is None for text in example.negatives]
    if all(kept):
        return example
    if not any(kept):
        return None
    kept = [True] * len(example.positives) + kept

    def keep(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(v for v, k in zip(values, kept, strict=True) if k) if values else values

    negatives = keep(example.positives + example.negatives)[len(example.positives) :]
    scores, ids = keep(example.scores), keep(example.document_ids)
    gram = part_of(example.teacher_gram, len(kept), kept)
    return replace(example, negatives=negatives, scores=scores, document_ids=ids, teacher_gram=gram)


def _part_of(node: int, held: Mapping[str, frozenset[int]]) -> str | None:
    return next((name for name, nodes in held.items() if node in nodes), None)


class _Collector:
    """Gathers the texts of one part: queries, what answers them, and ``others`` beside those."""

    def __init__(self, others: frozenset[int]) -> None:
        self._others = others
        self._queries: dict[int, tuple[str, str]] = {}
        self._documents: dict[int, tuple[str, str]] = {}
        self._beside: dict[int, tuple[str, str]] = {}
        self._answers: dict[int, dict[int, int]] = {}

    def add_held_out(self, example: Example) -> None:
        """Add a held-out row; a text that is a document already is no query: it would find itself."""
        query = node_of(example.query)
        found = {
            node: text for node, text in _documents(example, example.positives) if node != query
        }
        found = {node: text for node, text in found.items() if node not in self._queries}
        if found and query not in self._documents and not is_judged_pair(example):
            self._queries.setdefault(query, (example.query_id, example.query))
            self._answers.setdefault(query, {}).update(dict.fromkeys(found, 1))
            for node, text in found.items():
                self._documents.setdefault(node, text)

    def add_beside(self, example: Example) -> None:
        """Add those documents of a row that were chosen to be searched as well."""
        for node, text in _documents(example, example.positives + example.negatives):
            if node in self._others:
                self._beside.setdefault(node, text)

    def task(self, key: str, num_documents: int) -> dict[str, Any]:
        """Return the fields of the task; other documents fill the corpus up to ``num_documents``."""
        room = max(0, num_documents - len(self._documents))
        documents = self._documents | {
            node: self._beside[node] for node in sorted(self._beside)[:room]
        }
        query_ids, document_ids = _names(self._queries), _names(documents)
        return {
            "query_ids": list(query_ids.values()),
            "queries": [text for _, text in self._queries.values()],
            "document_ids": list(document_ids.values()),
            "documents": [text for _, text in documents.values()],
            "qrels": {
                query_ids[query]: {document_ids[node]: 1 for node in nodes}
                for query, nodes in self._answers.items()
            },
            "fingerprint": hashlib.sha256(key.encode()).hexdigest(),
        }


def _documents(example: Example, texts: Sequence[str]) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield node, id and text of the first documents of a row."""
    ids = example.document_ids or [""] * len(texts)
    for text, name in zip(texts, ids, strict=False):
        yield node_of(text), (name, text)


def _names(texts: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """Return an id for each text: its own, or its hash where it has none or another text has the same."""
    names: dict[int, str] = {}
    used: set[str] = set()
    for node, (name, _) in texts.items():
        names[node] = name if name and name not in used else f"{name}#{node:016x}".lstrip("#")
        used.add(names[node])
    return names


def _build(
    sources: Sequence[Source],
    parts: Sequence[Part],
    key: str,
    progress: Callable[[int], None],
    by: By,
    folder: Path,
) -> None:
    largest = max(part.num_documents for part in parts)
    links = LinkedTexts(CANDIDATES * largest, by)
    for source in sources:
        for example in source.examples():
            links.add(example)
            progress(1)
    groups = links.hold_out([part.fraction for part in parts])
    held = {part.name: frozenset(nodes) for part, nodes in zip(parts, groups, strict=True)}
    free = frozenset(node for node in links.candidates().tolist() if not _part_of(node, held))
    collectors = {part.name: _Collector(free) for part in parts}
    rows = []
    for source in sources:
        counts = dict.fromkeys((TRAINING, *held), 0)
        for example in source.examples():
            kept_for = _part_of(node_of(example.query), held)
            if kept_for is not None:
                collectors[kept_for].add_held_out(example)
            else:
                for collector in collectors.values():
                    collector.add_beside(example)
            counts[kept_for or TRAINING] += bool(kept_for or _left_of(example, held))
            progress(1)
        rows.append(counts)
    tasks = {
        part.name: collectors[part.name].task(f"{key} {part.name}", part.num_documents)
        for part in parts
    }
    for part in parts:
        _refuse_few(part, len(tasks[part.name]["queries"]), links.num_queries)
    texts = {name: sorted(nodes) for name, nodes in held.items()}
    split = {"num_queries": links.num_queries, "rows": rows, "texts": texts, "tasks": tasks}
    (folder / "split.json").write_text(json.dumps(split), "utf-8")


def _refuse_few(part: Part, num_held: int, num_queries: int) -> None:
    if num_held < MIN_QUERIES:
        raise UserError(
            f"{part.name}.fraction",
            f"holds out {num_held} of {num_queries} queries, and fewer than {MIN_QUERIES} measure nothing",
            got=part.fraction,
            cure="Raise it, or name a task as path (rows of scored pairs, and queries that nearly all "
            "share documents, cannot be held out)",
        )
