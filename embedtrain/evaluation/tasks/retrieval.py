"""Retrieval: find the relevant documents of a corpus."""

import copy
from typing import ClassVar

import numpy as np

from embedtrain.data.sources import load_task
from embedtrain.evaluation.measures.metrics import (
    Ranking,
    mean_scores,
    parse_metric,
    rank_arrays,
    score_expected,
    score_ranking,
    tied_boundary_ratio,
)
from embedtrain.evaluation.results.result import EvaluatedData, Ties
from embedtrain.evaluation.tasks.base import Outcome, Task
from embedtrain.evaluation.tasks.files import TaskFiles
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.encoder import TextEncoder
from embedtrain.retrieval.dense.exact import SearchResult

METRICS = ("ndcg_at_10", "mrr_at_10", "map_at_100", "recall_at_100", "precision_at_10")
RESULTS = 100
"""Results kept per query: the deepest cut-off of the metrics."""


TIES_ALLOWED = 0.01
"""Share of the queries tied at the cut up to which only trec_eval's value is given."""


class Retrieval(Task):
    """Rank a whole corpus for each judged query; the metrics are trec_eval's."""

    kind: ClassVar[str] = "retrieval"
    needs: ClassVar[str] = "a folder with corpus.jsonl, queries.jsonl and qrels/<split>.tsv"

    def __init__(self, files: TaskFiles) -> None:
        self.files = files
        self.task = task = load_task(str(files.path), files.split)
        self.item_file = files.path / "queries.jsonl"
        self.texts = dict(zip(task.query_ids, task.queries, strict=True))
        self.data = EvaluatedData(
            name=task.name,
            split=files.split,
            fingerprint=task.fingerprint,
            num_queries=len(task.queries),
            num_documents=len(task.documents),
        )

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether this is a BEIR folder without candidates, or the built-in set."""
        own = files.is_beir and not (files.path / "top_ranked.jsonl").is_file()
        return own or str(files.path) == "python_docs"

    def read_by(self, model: TextEncoder) -> "Retrieval":
        """Return the task as a model reads it (:meth:`RetrievalTask.read_by`)."""
        view = copy.copy(self)
        view.task = self.task.read_by(model.contract)
        return view

    def run(self, subject: Subject) -> Outcome:
        """Search the whole corpus for every query."""
        task = self.task.read_by(subject.model.contract)
        found = subject.search(task.queries, task.documents, RESULTS, "query")
        ranking = rank_arrays(
            task.qrels, task.query_ids, task.document_ids, found.indices, found.scores
        )
        run = as_run(task.query_ids, task.document_ids, found)
        return Outcome(score_ranking(ranking, METRICS), run=run, ties=find_ties(ranking))


def find_ties(ranking: Ranking) -> Ties | None:
    """Return what the main metric is expected to be without the order of ids, if ties matter at its cutoff."""
    main = METRICS[0]
    _, cutoff = parse_metric(main)
    tied = tied_boundary_ratio(ranking, cutoff)
    if tied <= TIES_ALLOWED:
        return None
    expected = mean_scores(score_expected(ranking, [main]))
    return Ties(cutoff=cutoff, tied_queries=tied, expected=expected)


def as_run(
    query_ids: list[str], document_ids: list[str], found: SearchResult
) -> dict[str, dict[str, float]]:
    """Turn rows of results into query id to document id to score."""
    return {
        query: {
            document_ids[index]: float(score)
            for index, score in zip(indices.tolist(), scores, strict=True)
            if index >= 0 and np.isfinite(score)
        }
        for query, indices, scores in zip(query_ids, found.indices, found.scores, strict=True)
    }
