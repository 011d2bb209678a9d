"""Reranking: order the candidates that another system found."""

from pathlib import Path
from typing import Any, ClassVar

from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.readers.text_lines import hash_files
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.results.result import EvaluatedData
from embedtrain.evaluation.tasks.base import Outcome, Task
from embedtrain.evaluation.tasks.candidates import CandidateScorer
from embedtrain.evaluation.tasks.files import TaskFiles, item_ids, read_rows
from embedtrain.evaluation.tasks.subject import Subject

METRICS = ("map_at_1000", "mrr_at_10", "ndcg_at_10")


class Reranking(Task):
    """Score each query's own candidates; average precision over all of them comes first, as in MTEB."""

    kind: ClassVar[str] = "reranking"
    needs: ClassVar[str] = (
        "rows {query, positive: [...], negative: [...]}, or a BEIR folder with top_ranked.jsonl "
        "of {query-id, corpus-ids: [...]}"
    )

    def __init__(
        self,
        data: EvaluatedData,
        item_file: Path,
        queries: dict[str, str],
        candidates: dict[str, dict[str, str]],
        qrels: dict[str, dict[str, int]],
    ) -> None:
        self.data = data
        self._item_file = item_file
        self.queries = queries
        self.candidates = candidates
        self.qrels = qrels

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold a query with answers, or a BEIR folder has candidates."""
        rows = {"query", "positive"} <= files.columns
        return rows or (files.is_beir and (files.path / "top_ranked.jsonl").is_file())

    @classmethod
    def open(cls, files: TaskFiles) -> "Reranking":
        """Read queries, candidates and judgments."""
        return cls._open_folder(files) if files.is_beir else cls._open_rows(files)

    @classmethod
    def _open_rows(cls, files: TaskFiles) -> "Reranking":
        rows = read_rows(files.path, {"query": str, "positive": list, "negative": list})
        ids = item_ids(files.path, rows)
        candidates: dict[str, dict[str, str]] = {}
        qrels: dict[str, dict[str, int]] = {}
        for name, row in zip(ids, rows, strict=True):
            if not row["positive"]:
                raise _without_positive(files.path, name)
            candidates[name] = {
                f"{name}-{side}-{number}": _text(text, files.path, name)
                for side in ("positive", "negative")
                for number, text in enumerate(row[side], 1)
            }
            qrels[name] = {f"{name}-positive-{n}": 1 for n in range(1, len(row["positive"]) + 1)}
        data = files.described("reranking", len(rows), sum(map(len, candidates.values())))
        queries = {name: row["query"] for name, row in zip(ids, rows, strict=True)}
        return cls(data, files.path, queries, candidates, qrels)

    @classmethod
    def _open_folder(cls, files: TaskFiles) -> "Reranking":
        task = load_retrieval_task(files.path, files.split)
        ranked = files.path / "top_ranked.jsonl"
        rows = read_rows(ranked, {"query-id": str, "corpus-ids": list})
        texts = dict(zip(task.document_ids, task.documents, strict=True))
        found = {row["query-id"]: row["corpus-ids"] for row in rows}
        candidates = {}
        for query in task.query_ids:
            if query not in found:
                raise UserError(
                    ranked, "lacks a judged query", got=query, cure="Add its candidates"
                )
            if unknown := next((one for one in found[query] if one not in texts), None):
                raise UserError(ranked, "names a document the corpus lacks", got=unknown)
            candidates[query] = {one: texts[one] for one in found[query]}
        data = EvaluatedData(
            name=task.name,
            split=files.split,
            fingerprint=task.fingerprint[:32] + hash_files([ranked])[:32],
            num_queries=len(candidates),
            num_documents=sum(map(len, candidates.values())),
            task="reranking",
        )
        queries = dict(zip(task.query_ids, task.queries, strict=True))
        return cls(data, files.path / "queries.jsonl", queries, candidates, task.qrels)

    def run(self, subject: Subject) -> Outcome:
        """Score every query against its own candidates."""
        run = CandidateScorer(subject).run(self.queries, self.candidates)
        return Outcome(score_run(self.qrels, run, METRICS), run=run)

    @property
    def item_file(self) -> Path:
        """The file of the queries."""
        return self._item_file

    @property
    def texts(self) -> dict[str, str]:
        """Query id to query."""
        return self.queries


def _text(value: Any, path: Path, name: str) -> str:  # noqa: ANN401 - from a user's file
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            path, f"holds a candidate of {name!r} that is no text", got=value, cure="Correct it"
        )
    return value


def _without_positive(path: Path, name: str) -> UserError:
    return UserError(path, "has a query without positives", got=name, cure="Drop it or judge one")
