"""Workflow: people's queries, and what answers them, are divided in two: one half chooses a model, the other decides."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedtrain.data.linked_texts import node_of
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.readers.rows import join_title
from embedtrain.data.readers.text_lines import read_lines
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder
from embedtrain.locks import owns
from embedtrain.section import Count, Section
from embedtrain.training.settings import Others
from embedtrain.workflows.asked import FEWEST, in_order, is_judged, load_judged, read_rows
from embedtrain.workflows.hold_out import write_beir
from embedtrain.workflows.rivals import with_fewer

WORDS = 4
"""So many words are looked for inside documents; fewer stand in many."""
Grades = dict[str, int]


class DivideStage(Section):
    """Makes a BEIR folder with the splits ``dev`` and ``test`` of queries that people wrote; nothing of it trains.

    A BEIR folder that has both already keeps them.
    """

    path: str
    """A BEIR folder, or rows with a query and the document that answers it: its id in ``corpus``, or its text."""
    split: str = "test"
    """Which judgments, of a BEIR folder."""
    corpus: str | None = None
    """For rows: ``corpus.jsonl`` of a BEIR folder, in which is searched; null searches what the rows name."""
    chooses: bool = True
    """Whether half of the queries choose; else all of them are in ``test``, be they few."""
    num_documents: Count | None = None
    """So many documents at most, what answers a query always among them; null keeps all."""
    others: Others = "random"
    """Which others: any, or with ``bm25`` those that BM25 finds for the queries."""


@owns("output")
def divide(work: DivideStage, output: Path) -> Path:
    """Write the folder; which half a query is in follows from its text.

    Raises:
        UserError: If the queries cannot be used, or are too few.
    """
    task, given = _read(work)
    if work.chooses and len(task.queries) < FEWEST:
        cure = "Give more, or none: then the model is chosen and measured on queries that are made"
        raise UserError(
            work.path, f"has fewer than {FEWEST} queries", got=len(task.queries), cure=cure
        )
    task = with_fewer(task, None, work.num_documents, work.others)
    splits = given if work.chooses and given else _halves(task, chooses=work.chooses)
    with appearing_folder(output) as building:
        documents = zip(task.document_ids, task.documents, strict=True)
        queries = zip(task.query_ids, task.queries, strict=True)
        write_beir(building, documents, queries, splits)
    return output


def _read(work: DivideStage) -> tuple[RetrievalTask, dict[str, dict[str, Grades]]]:
    """Return all queries as one task, and the splits that they come in."""
    if not is_judged(work.path):
        return _read_rows(work), {}
    found = load_judged(work.path, work.split)
    last = found[work.split]
    queries = {
        name: query
        for task in found.values()
        for name, query in zip(task.query_ids, task.queries, strict=True)
    }
    judged = {name: grades for task in found.values() for name, grades in task.qrels.items()}
    whole = RetrievalTask(
        last.name, list(queries), list(queries.values()), last.document_ids, last.documents, judged,
        last.fingerprint,
    )  # fmt: skip
    if len(found) == 1:
        return whole, {}
    test = last.qrels
    dev = {name: grades for name, grades in found["dev"].qrels.items() if name not in test}
    return whole, {"dev": dev, "test": test}


def _halves(task: RetrievalTask, *, chooses: bool) -> dict[str, dict[str, Grades]]:
    if not chooses:
        return {"test": task.qrels}
    halves: dict[str, dict[str, Grades]] = {"dev": {}, "test": {}}
    queries = dict(zip(task.query_ids, task.queries, strict=True))
    for number, name in enumerate(in_order(queries)):
        halves[("dev", "test")[number % 2]][name] = task.qrels[name]
    return halves


def _read_rows(work: DivideStage) -> RetrievalTask:
    corpus = _Corpus(work.corpus)
    queries: dict[str, str] = {}
    judged: dict[str, Grades] = {}
    for example in read_rows(work.path):
        name = f"{node_of(example.query):016x}"
        queries[name] = example.query
        place = f"{work.path}: {example.query[:60]!r}"
        found = [document for text in example.positives for document in corpus.find(text, place)]
        judged[name] = dict.fromkeys(found, 1)
    return RetrievalTask(
        "rows", list(queries), list(queries.values()), list(corpus.texts),
        list(corpus.texts.values()), judged, "",
    )  # fmt: skip


class _Corpus:
    """Documents by id, found by their id, by that of the file that they are a chunk of, or by their text."""

    def __init__(self, path: str | None) -> None:
        self.texts: dict[str, str] = {}
        self._known: dict[str | int, list[str]] = {}
        self._is_open = path is None
        for row in _rows(path):
            text = join_title(row.get("title"), row["text"])
            self._add(
                str(row["_id"]),
                text,
                (row["_id"], row.get("document"), *row.get("copies", ()), node_of(row["text"])),
            )

    def _add(self, name: str, text: str, keys: tuple[str | int | None, ...]) -> None:
        self.texts[name] = text
        for key in {*keys, node_of(text)} - {None}:
            self._known.setdefault(key or "", []).append(name)

    def find(self, words: str, place: str) -> list[str]:
        """Return the documents that an id or a text means; where no corpus is named, a text that is new becomes one."""
        key = node_of(words)
        found = self._known.get(words.strip()) or self._known.get(key)
        if found is None and self._is_open:
            self._add(f"{key:016x}", words, ())
            found = self._known[key]
        found = found or self._holding(words)
        if not found:
            cure = "Write the id of a document, its file's path, or words of its text"
            raise UserError(
                place, "is answered by what is no document of the corpus", got=words, cure=cure
            )
        return found

    def _holding(self, words: str) -> list[str]:
        """Return the documents in which these words stand."""
        looked_for = _folded(words)
        if len(looked_for.split()) < WORDS:
            return []
        return [name for name, text in self.texts.items() if looked_for in _folded(text)]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _rows(path: str | None) -> Iterator[dict[str, Any]]:
    if path is None:
        return
    for _, _, line in read_lines(Path(path)):
        if not line.isspace():
            yield json.loads(line)
