"""Workflow: people's queries, and what answers them, are divided in two: one half chooses a model, the other decides."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedtrain.data.examples import SourceConfig
from embedtrain.data.linked_texts import node_of
from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.readers.text_lines import read_lines
from embedtrain.data.sources import detect_format, open_source
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder
from embedtrain.locks import owns
from embedtrain.section import Section
from embedtrain.workflows.hold_out import write_beir

FEWEST = 16
"""Fewer queries cannot be divided into two parts that measure anything."""
Grades = dict[str, int]


class DivideStage(Section):
    """Makes a BEIR folder with the splits ``dev`` and ``test`` of queries that people wrote; nothing of it trains."""

    path: str
    """A BEIR folder, or rows with a query and the document that answers it: its id in ``corpus``, or its text."""
    split: str = "test"
    """Which judgments, of a BEIR folder."""
    corpus: str | None = None
    """For rows: ``corpus.jsonl`` of a BEIR folder, in which is searched; null searches what the rows name."""


@owns("output")
def divide(work: DivideStage, output: Path) -> Path:
    """Write the folder; which half a query is in follows from its text.

    Raises:
        UserError: If the queries cannot be used, or are too few.
    """
    if detect_format(work.path) == "beir":
        task = load_retrieval_task(Path(work.path).expanduser(), work.split)
        documents = dict(zip(task.document_ids, task.documents, strict=True))
        queries = dict(zip(task.query_ids, task.queries, strict=True))
        judged = dict(task.qrels)
    else:
        corpus = _Corpus(work.corpus)
        queries, judged = _read_rows(work, corpus)
        documents = corpus.texts
    if len(queries) < FEWEST:
        cure = "Give more, or none: then the model is chosen and measured on queries that are made"
        raise UserError(work.path, f"has fewer than {FEWEST} queries", got=len(queries), cure=cure)
    halves: dict[str, dict[str, Grades]] = {"dev": {}, "test": {}}
    ordered = sorted(queries, key=lambda query: _order(queries[query]))
    for number, query in enumerate(ordered):
        halves[("dev", "test")[number % 2]][query] = judged[query]
    with appearing_folder(output) as building:
        write_beir(building, documents.items(), queries.items(), halves)
    return output


def _order(query: str) -> bytes:
    return hashlib.blake2b(query.encode(), digest_size=16).digest()


def _read_rows(work: DivideStage, corpus: "_Corpus") -> tuple[dict[str, str], dict[str, Grades]]:
    queries: dict[str, str] = {}
    judged: dict[str, Grades] = {}
    for example in open_source(SourceConfig(path=work.path)).examples():
        name = f"{node_of(example.query):016x}"
        queries[name] = example.query
        found = [document for text in example.positives for document in corpus.find(text)]
        judged.setdefault(name, {}).update(dict.fromkeys(found, 1))
    return queries, judged


class _Corpus:
    """Documents by id, found by their id, by that of the file that they are a chunk of, or by their text."""

    def __init__(self, path: str | None) -> None:
        self.texts: dict[str, str] = {}
        self._known: dict[str | int, list[str]] = {}
        for row in _rows(path):
            text = " ".join(filter(None, (row.get("title"), row["text"])))
            self._add(
                str(row["_id"]), text, (row["_id"], row.get("document"), node_of(row["text"]))
            )

    def _add(self, name: str, text: str, keys: tuple[str | int | None, ...]) -> None:
        self.texts[name] = text
        for key in {*keys, node_of(text)} - {None}:
            self._known.setdefault(key or "", []).append(name)

    def find(self, words: str) -> list[str]:
        """Return the documents that an id or a text means; a text that is new becomes one."""
        key = node_of(words)
        found = self._known.get(words.strip()) or self._known.get(key)
        if found is None:
            self._add(f"{key:016x}", words, ())
            found = self._known[key]
        return found


def _rows(path: str | None) -> Iterator[dict[str, Any]]:
    if path is None:
        return
    for _, _, line in read_lines(Path(path)):
        if not line.isspace():
            yield json.loads(line)
