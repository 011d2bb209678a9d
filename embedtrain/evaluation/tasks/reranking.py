"""Reranking: order the candidates that another system found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.readers.text_lines import hash_files
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.results.result import EvaluatedData
from embedtrain.evaluation.tasks.base import Outcome, Task
from embedtrain.evaluation.tasks.files import TaskFiles, item_ids, read_rows
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.retrieval.late_interaction.rerank import rerank
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

METRICS = ("map_at_1000", "mrr_at_10", "ndcg_at_10")


class Reranking(Task):
    """Score each query's own candidates; average precision over all of them comes first, as in MTEB."""

    kind: ClassVar[str] = "reranking"
    needs: ClassVar[str] = (
        "rows {query, positive: [...], negative: [...]}, or a BEIR folder with top_ranked.jsonl "
        "of {query-id, corpus-ids: [...]}"
    )

    def __init__(self, files: TaskFiles) -> None:
        self.texts: dict[str, str] = {}
        self.candidates: dict[str, dict[str, str]] = {}
        self.qrels: dict[str, dict[str, int]] = {}
        self.data = self._read_folder(files) if files.is_beir else self._read_rows(files)
        self.item_file = files.path / "queries.jsonl" if files.is_beir else files.path

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold a query with answers, or a BEIR folder has candidates."""
        rows = {"query", "positive"} <= files.columns
        return rows or (files.is_beir and (files.path / "top_ranked.jsonl").is_file())

    def _read_rows(self, files: TaskFiles) -> EvaluatedData:
        rows = read_rows(files.path, {"query": str, "positive": list, "negative": list})
        for name, row in zip(item_ids(files.path, rows), rows, strict=True):
            if not row["positive"]:
                cure = "Drop it or judge one"
                raise UserError(files.path, "has a query without positives", got=name, cure=cure)
            self.texts[name] = row["query"]
            self.candidates[name] = {
                f"{name}-{side}-{number}": _text(text, files.path, name)
                for side in ("positive", "negative")
                for number, text in enumerate(row[side], 1)
            }
            answers = range(1, len(row["positive"]) + 1)
            self.qrels[name] = {f"{name}-positive-{number}": 1 for number in answers}
        return files.described("reranking", len(rows), sum(map(len, self.candidates.values())))

    def _read_folder(self, files: TaskFiles) -> EvaluatedData:
        task = load_retrieval_task(files.path, files.split)
        ranked = files.path / "top_ranked.jsonl"
        rows = read_rows(ranked, {"query-id": str, "corpus-ids": list})
        texts = dict(zip(task.document_ids, task.documents, strict=True))
        found = {row["query-id"]: row["corpus-ids"] for row in rows}
        self.texts, self.qrels = dict(zip(task.query_ids, task.queries, strict=True)), task.qrels
        for query in task.query_ids:
            if query not in found:
                raise UserError(
                    ranked, "lacks a judged query", got=query, cure="Add its candidates"
                )
            if unknown := next((one for one in found[query] if one not in texts), None):
                raise UserError(ranked, "names a document the corpus lacks", got=unknown)
            self.candidates[query] = {one: texts[one] for one in found[query]}
        return EvaluatedData(
            name=task.name,
            split=files.split,
            fingerprint=task.fingerprint[:32] + hash_files([ranked])[:32],
            num_queries=len(self.candidates),
            num_documents=sum(map(len, self.candidates.values())),
            task="reranking",
        )

    def run(self, subject: Subject) -> Outcome:
        """Score every query against its own candidates."""
        run = score_candidates(subject, self.texts, self.candidates)
        return Outcome(score_run(self.qrels, run, METRICS), run=run)


def _text(value: Any, path: Path, name: str) -> str:  # noqa: ANN401 - from a user's file
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            path, f"holds a candidate of {name!r} that is no text", got=value, cure="Correct it"
        )
    return value


def score_candidates(
    subject: Subject, queries: Mapping[str, str], candidates: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, float]]:
    """Score each query against its own candidates; return query id to document id to score."""
    row_of: dict[str, int] = {}
    for found in candidates.values():
        for text in found.values():
            row_of.setdefault(text, len(row_of))
    names = list(candidates)
    asked = subject.encode([queries[name] for name in names], "query")
    documents = subject.encode(list(row_of), "document")
    run = {}
    for number, name in enumerate(names):
        rows = np.array([row_of[text] for text in candidates[name].values()], dtype=np.int64)
        if isinstance(asked, TokenVectors):
            assert isinstance(documents, TokenVectors)
            one = asked.part(number, number + 1)
            best = rerank(one, documents, rows[None], len(np.unique(rows)))
            score_of = dict(zip(best.indices[0].tolist(), best.scores[0].tolist(), strict=True))
            scores = [score_of[row] for row in rows.tolist()]
        elif isinstance(asked, SparseVectors):
            assert isinstance(documents, SparseVectors)
            query = asked.part(number, number + 1).dense()[0]
            scores = (documents.select(rows).matrix() @ query).tolist()
        else:
            assert isinstance(documents, np.ndarray)
            scores = (documents[rows] @ asked[number]).tolist()
        run[name] = dict(zip(candidates[name], scores, strict=True))
    return run
