"""Thresholds: how scores of relevant, near and random documents lie, and from which score on results are right.

Source: Roychowdhury et al. (2024), https://arxiv.org/abs/2406.12336, who read a threshold off the distributions; here
it is the lowest score whose precision is sure on half of the queries, and the other half says what it is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.statistics import FEWEST, bootstrap_interval
from embedtrain.evaluation.measures.thresholds import (
    Judged,
    Scores,
    cut_at,
    lowest_cut,
    overlap,
    separation,
)
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.results.threshold import Threshold
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.retrieval.dense.exact import SearchResult

QUERIES = 1000
"""Queries that are drawn at most."""
DEPTH = 10
"""First results of a query that are looked at, and relevant documents of a query that are scored at most."""

Samples = dict[str, Float64[np.ndarray, " _"]]
"""Scores of pairs whose document is relevant, near or random."""


@dataclass(frozen=True)
class Shown:
    """Scores of first results, query by query."""

    scores: Scores
    relevant: Judged
    query: Int64[np.ndarray, " pairs"]
    """The row of each one's query."""

    def of(self, queries: Int64[np.ndarray, " some"]) -> "Shown":
        """Return those of some queries."""
        kept = np.isin(self.query, queries)
        return Shown(self.scores[kept], self.relevant[kept], self.query[kept])


class Thresholds(Probe):
    """Compare scores of relevant, near and random documents and find where to cut for a wanted precision.

    Near are the first ten results that are not judged relevant. The threshold is chosen on half of the queries: the
    lowest score whose precision among the first results has a lower bound of 95 % at what is wanted. Precision, its
    interval and recall are those of the other half. Unjudged documents count as wrong, so true precision is higher.
    """

    name: ClassVar[str] = "thresholds"
    needs_data: ClassVar[str] = "a BEIR folder"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Score pairs of three kinds and choose a threshold."""
        samples, threshold = measure_thresholds(subject, wish)
        return [*describe_samples(samples), *show_threshold(threshold)]


def measure_thresholds(subject: Subject, wish: ProbeWish) -> tuple[Samples, Threshold]:
    """Return the three samples of scores, and the threshold.

    Raises:
        UserError: If there are too few queries, or no score reaches the wanted precision.
    """
    task = open_task(str(wish.data), kind="retrieval")
    assert isinstance(task, Retrieval)
    number = len(task.task.queries)
    if number < 2 * FEWEST:
        raise UserError(
            "thresholds", f"need {2 * FEWEST} judged queries", got=number, cure="Judge more"
        )
    order = np.random.Generator(np.random.PCG64(wish.seed)).permutation(number)[:QUERIES]
    rows = np.sort(order)
    judged = _judged(task.task, rows)
    found = subject.search(
        [task.task.queries[row] for row in rows], task.task.documents, DEPTH, "query"
    )
    shown = _shown(found, judged)
    samples = _samples(subject, task.task, rows, judged, wish)
    samples["near"] = shown.scores[~shown.relevant]
    places = np.searchsorted(rows, order)
    half = (len(places) + 1) // 2
    chosen_on = shown.of(places[:half])
    score = lowest_cut(chosen_on.scores, chosen_on.relevant, wish.precision)
    return samples, _judge(score, shown.of(places[half:]), subject, task, wish)


def describe_samples(samples: Samples) -> list[Finding]:
    """Give the middle and the ends of each sample, and how far relevant scores stand out."""
    findings = []
    for name, scores in samples.items():
        if len(scores):
            values = np.quantile(scores, (0.05, 0.5, 0.95)).tolist()
            names = ("5 %", "median", "95 %")
            findings += [
                Finding(f"{len(scores):,} {name}", *one) for one in zip(names, values, strict=True)
            ]
    for name in ("near", "random"):
        if len(samples["relevant"]) and len(samples[name]):
            pair = samples["relevant"], samples[name]
            findings.append(Finding(f"relevant and {name}", "overlap", overlap(*pair)))
            findings.append(Finding(f"relevant and {name}", "auc", separation(*pair)))
    return findings


def show_threshold(found: Threshold) -> list[Finding]:
    """Give the threshold and what it is worth."""
    setting = f"precision of {found.wanted:g}, {found.num_queries:,} queries"
    names = {
        "threshold": found.score,
        "precision": found.precision,
        "low": found.low,
        "high": found.high,
    }
    names |= {"recall": found.recall}
    return [Finding(setting, name, value) for name, value in names.items()]


def _judged(task: RetrievalTask, rows: Int64[np.ndarray, " queries"]) -> list[set[int]]:
    """Return the places of the documents relevant to each query."""
    place = {document: number for number, document in enumerate(task.document_ids)}
    qrels = [task.qrels[task.query_ids[row]] for row in rows]
    return [
        {place[one] for one, label in labels.items() if label >= 1 and one in place}
        for labels in qrels
    ]


def _shown(found: SearchResult, judged: Sequence[set[int]]) -> Shown:
    listed = (found.indices >= 0) & np.isfinite(found.scores)
    hits = [
        [one in right for one in row]
        for row, right in zip(found.indices.tolist(), judged, strict=True)
    ]
    query = np.nonzero(listed)[0]
    return Shown(found.scores[listed].astype(np.float64), np.array(hits, dtype=bool)[listed], query)


def _samples(
    subject: Subject,
    task: RetrievalTask,
    rows: Int64[np.ndarray, " queries"],
    judged: Sequence[set[int]],
    wish: ProbeWish,
) -> Samples:
    """Return the scores of relevant documents, at most ten a query, and those of ``size`` random ones."""
    generator = np.random.Generator(np.random.PCG64([wish.seed, 1]))
    number = len(task.documents)
    drawn = generator.choice(number, min(wish.size, number), replace=False).tolist()
    some = [sorted(right)[:DEPTH] for right in judged]
    pool = np.array(sorted({*drawn, *(one for right in some for one in right)}))
    queries, documents = [task.queries[row] for row in rows], [task.documents[one] for one in pool]
    found = subject.search(queries, documents, len(pool), "query")
    scores = np.zeros(
        (len(rows), len(pool))
    )  # what exact search leaves out shares no entry with the query
    query, place = np.nonzero(found.indices >= 0)
    scores[query, found.indices[query, place]] = found.scores[query, place]
    right = np.zeros(scores.shape, dtype=bool)
    wrong = np.broadcast_to(np.isin(pool, drawn), scores.shape).copy()
    for row, documents_of in enumerate(judged):
        right[row] = np.isin(pool, some[row])
        wrong[row] &= ~np.isin(pool, list(documents_of))
    return {"relevant": scores[right], "random": scores[wrong]}


def _judge(
    score: float, shown: Shown, subject: Subject, task: Retrieval, wish: ProbeWish
) -> Threshold:
    """Say what a threshold is worth on queries that did not choose it."""
    cut = cut_at(score, shown.scores, shown.relevant)
    kept = shown.scores >= score
    if not kept.any():
        raise UserError(
            "thresholds", "leave no result to the queries that are to judge them", got=score, cure="Judge more pairs"
        )  # fmt: skip
    clusters = [str(row) for row in shown.query[kept].tolist()]
    interval = bootstrap_interval(
        shown.relevant[kept].astype(np.float64), clusters=clusters, seed=wish.seed
    )
    return Threshold(
        score=score, wanted=wish.precision, precision=cut.precision, low=interval.low, high=interval.high,
        recall=cut.recall, similarity=subject.model.contract.similarity,
        data=f"{task.data.name} {task.data.split}", num_queries=len(set(shown.query.tolist())),
        num_documents=len(task.task.documents), depth=DEPTH, weights=subject.key,
    )  # fmt: skip
