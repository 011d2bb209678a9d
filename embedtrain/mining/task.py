"""What is mined: queries, their positives, and the documents among which negatives are sought."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from embedtrain.contract.context import Context, marked_in, reads_contexts, refuse_alone
from embedtrain.contract.spans import alone, is_marked, unmark
from embedtrain.data.examples import SourceConfig, text_id
from embedtrain.data.readers.beir import RetrievalTask, own_positives
from embedtrain.data.sources import detect_format, load_task, open_source
from embedtrain.errors import UserError
from embedtrain.models.backbone.folder_files import read_form


@dataclass(frozen=True)
class MiningTask:
    """Queries and documents; ``positives`` holds the rows of the documents that answer each query."""

    name: str
    query_ids: list[str]
    queries: list[str]
    document_ids: list[str]
    documents: list[str]
    positives: list[NDArray[np.int64]]
    fingerprint: str
    writer: str | None = None
    """What wrote the queries, where that is known: the name of a model, or ``rules``."""
    own_positives: dict[str, dict[str, str]] = field(default_factory=dict)
    """Texts that a query is trained with, by its id and that of the document that is searched: such as the text
    without the words that became the query."""
    contexts: list[Context] | None = None
    """The documents of which the searched ones are chunks, where the corpus says so."""

    def read_by(self, contract: Any) -> list[str]:  # noqa: ANN401 - its type would bring torch
        """Return the documents as a model reads them: chunks within theirs if its contract says so.

        A model without vectors for spans reads what is marked alone.

        Raises:
            UserError: If it does, and chunks come alone.
        """
        if not reads_contexts(contract):
            return self.documents if getattr(contract, "spans", None) is not None else self.chunks
        if self.contexts is not None:
            return marked_in(self.contexts, contract.length("document"))
        if not any(map(is_marked, self.documents)):
            refuse_alone(contract, "mining and scoring")
        return self.documents

    @cached_property
    def chunks(self) -> list[str]:
        """The documents as all else reads them: what is marked in rows stands alone."""
        return [alone(text) for text in self.documents]

    @cached_property
    def row_of_query(self) -> dict[str, int]:
        """The row of each query by its id."""
        return {query_id: row for row, query_id in enumerate(self.query_ids)}

    @cached_property
    def row_of_document(self) -> dict[str, int]:
        """The row of each document by its id."""
        return {document_id: row for row, document_id in enumerate(self.document_ids)}


def load_mining_task(path: str, split: str = "train", cache: Path | None = None) -> MiningTask:
    """Read a BEIR folder, ``python_docs``, or any other source of training data.

    Of a training source, the corpus is all documents that it names, positives and negatives, each text once;
    rows with the same query become one query with all their positives. A query of a BEIR folder may hold
    ``positives``, texts by the ids of documents: rows to train on have these in the place of what is searched.
    """
    return mining_task_of(SourceConfig(path=path, split=split), cache)


def mining_task_of(config: SourceConfig, cache: Path | None = None) -> MiningTask:
    """Read what a section of ``data.sources`` names, with its columns; see :func:`load_mining_task`."""
    path = str(Path(config.path).expanduser()) if config.path.startswith("~") else config.path
    judged = ("beir", "python_docs")
    if config.pairs is None and (config.format or detect_format(path)) in judged:
        task = from_retrieval_task(load_task(path, config.split, cache))
        if (Path(path) / "queries.jsonl").is_file():
            task = replace(task, own_positives=own_positives(Path(path)))
    else:
        task = _from_source(config.model_copy(update={"path": path}), cache)
    return replace(task, writer=_writer_of(Path(path)))


class _SynthesisReport(BaseModel):
    writer: str | None = None


def _writer_of(path: Path) -> str | None:
    """Return what wrote the queries of a folder of ``embedtrain synth``, or of the rows in it."""
    folder = path if path.is_dir() else path.parent
    if not (folder / "synth.yaml").is_file():
        return None
    return read_form(folder / "report.json", _SynthesisReport, optional=True).writer


def from_retrieval_task(task: RetrievalTask) -> MiningTask:
    """Take documents judged 1 or more as positives; documents without text are left out."""
    rows = [row for row, text in enumerate(task.documents) if text.strip()]
    document_ids = [task.document_ids[row] for row in rows]
    row_of = {document_id: row for row, document_id in enumerate(document_ids)}
    positives = []
    for query_id in task.query_ids:
        judged = task.qrels[query_id].items()
        found = [row_of[name] for name, grade in judged if grade >= 1 and name in row_of]
        if not found:
            place = f"{task.name} query {query_id}"
            raise UserError(place, "has no positive with a text", cure="Drop its judgments")
        positives.append(np.array(found, dtype=np.int64))
    return MiningTask(
        name=task.name,
        query_ids=task.query_ids,
        queries=task.queries,
        document_ids=document_ids,
        documents=[task.documents[row] for row in rows],
        positives=positives,
        contexts=task.contexts and [task.contexts[row] for row in rows],
        fingerprint=_fingerprint(task.fingerprint, document_ids),
    )


def with_corpora(task: MiningTask, others: Sequence[MiningTask]) -> MiningTask:
    """Return the task with the documents of other ones behind its own, which answer none of its queries."""
    if not others:
        return task
    ids, texts, contexts = list(task.document_ids), list(task.documents), _contexts(task)
    for number, other in enumerate(others, start=2):
        ids += [f"{name}@{number}" for name in other.document_ids]
        texts += other.documents
        contexts += _contexts(other)
    content = "\n".join([task.fingerprint, *(other.fingerprint for other in others)])
    return replace(
        task,
        document_ids=ids,
        documents=texts,
        fingerprint=_fingerprint(content, ids),
        contexts=contexts if any(one.contexts for one in (task, *others)) else None,
    )


def _contexts(task: MiningTask) -> list[Context]:
    """Return the documents around all texts; of a corpus without any, the texts themselves, in which spans may be marked."""
    if task.contexts:
        return list(task.contexts)
    found = []
    for text in task.documents:
        plain, pieces = unmark(text)
        place = (pieces[0][0], pieces[-1][1]) if pieces else (0, len(plain))
        found.append((plain, place))
    return found


def _from_source(config: SourceConfig, cache: Path | None) -> MiningTask:
    source = open_source(config, cache)
    document_rows: dict[str, int] = {}
    document_ids: list[str] = []
    query_ids: dict[str, str] = {}
    positives: dict[str, dict[int, None]] = {}
    for example in source.examples():
        texts = example.positives + example.negatives
        names: Sequence[str] = example.document_ids or [f"{text_id(text):x}" for text in texts]
        for text, name in zip(texts, names, strict=True):
            if text not in document_rows:
                document_rows[text] = len(document_ids)
                document_ids.append(name)
        query_ids.setdefault(example.query, example.query_id or f"{text_id(example.query):x}")
        known = positives.setdefault(example.query, {})
        known.update(dict.fromkeys(document_rows[text] for text in example.positives))
    for what, ids in (("queries", list(query_ids.values())), ("documents", document_ids)):
        if len(set(ids)) < len(ids):
            raise UserError(
                source.place, f"gives two different {what} one id", cure="Make the ids unique"
            )
    return MiningTask(
        name=Path(config.path).name,
        query_ids=list(query_ids.values()),
        queries=list(query_ids),
        document_ids=document_ids,
        documents=list(document_rows),
        positives=[np.array(list(rows), dtype=np.int64) for rows in positives.values()],
        fingerprint=_fingerprint(source.fingerprint, document_ids),
    )


def _fingerprint(content: str, document_ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join([content, *document_ids]).encode()).hexdigest()
