"""Retrieval metrics with the values of trec_eval, computed for all queries at once.

A metric is named ``<kind>_at_<cutoff>``: ``ndcg_at_10``, ``mrr_at_10``, ``map_at_100``,
``recall_at_100``, ``precision_at_10``. Only documents judged 1 or higher are relevant; a document without
a judgment counts as not relevant.

Source: trec_eval 9, https://github.com/usnistgov/trec_eval (``ndcg_cut``, ``recip_rank``, ``map_cut``,
``recall``, ``P``).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from jaxtyping import Float32, Float64, Int64

from embedtrain.errors import UserError

Results = Int64[np.ndarray, " results"]

Values = Float64[np.ndarray, " queries"]
Places = Float64[np.ndarray, "queries depth"]

Qrels = Mapping[str, Mapping[str, int]]
"""Query id to document id to relevance; every query of it is evaluated."""
Run = Mapping[str, Mapping[str, float]]
"""Query id to document id to score."""
PerQuery = dict[str, dict[str, float]]
"""Metric to query id to value."""


@dataclass(frozen=True)
class Ranking:
    """The results of each judged query in trec_eval's order, as relevance instead of documents.

    Row ``i`` belongs to ``query_ids[i]``. Places behind the last result of a query hold the score NaN and
    the gain 0. A hit is a relevant document (1.0) or, where ties were averaged, the chance of one.
    """

    query_ids: tuple[str, ...]
    scores: Float32[np.ndarray, "queries depth"]
    gains: Places
    hits: Places
    ideal_gains: Float64[np.ndarray, "queries relevant"]
    num_relevant: Int64[np.ndarray, " queries"]


def rank_run(qrels: Qrels, run: Run) -> Ranking:
    """Put the results of a run in trec_eval's order: by float32 score, then by document id, both descending.

    A judged query that the run lacks has no results and scores 0; a query without judgments is left out.
    """
    _check_queries(qrels, run)
    rows: list[int] = []
    documents: list[str] = []
    scores: list[float] = []
    for row, query in enumerate(qrels):
        results = run.get(query, {})
        rows += [row] * len(results)
        documents += results.keys()
        scores += results.values()
    return _rank(qrels, np.array(rows, dtype=np.int64), documents, np.array(scores, np.float64))


def rank_arrays(
    qrels: Qrels,
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    indices: Int64[np.ndarray, "queries depth"],
    scores: Float32[np.ndarray, "queries depth"],
) -> Ranking:
    """Do what :func:`rank_run` does for the arrays that a search returns.

    ``indices[i, j]`` is the place in ``document_ids`` of a result of query ``query_ids[i]``; ``-1`` is no
    result. The results of a row may come in any order.
    """
    _check_queries(qrels, query_ids)
    row_of_query = {query: row for row, query in enumerate(qrels)}
    row_of_result = np.array([row_of_query.get(query, -1) for query in query_ids], dtype=np.int64)
    rows = np.broadcast_to(row_of_result[:, None], indices.shape)
    used = (indices >= 0) & (rows >= 0)
    documents = [document_ids[index] for index in indices[used].tolist()]
    return _rank(qrels, rows[used], documents, scores[used].astype(np.float64))


def score_ranking(ranking: Ranking, metrics: Sequence[str]) -> PerQuery:
    """Compute metrics for each query of a ranking.

    nDCG has linear gain, the discount ``1 / log2(rank + 1)`` and the ideal of all judged documents. Recall
    and MAP divide by all relevant documents, precision by the cutoff. A query without any relevant
    document scores 0.
    """
    scored = {}
    for name in metrics:
        kind, cutoff = parse_metric(name)
        values = _FORMULAS[kind](ranking, cutoff)
        scored[name] = dict(zip(ranking.query_ids, values.tolist(), strict=True))
    return scored


def score_run(qrels: Qrels, run: Run, metrics: Sequence[str]) -> PerQuery:
    """Compute metrics of a run for each judged query; see :func:`rank_run` and :func:`score_ranking`."""
    return score_ranking(rank_run(qrels, run), metrics)


def lower_is_better(name: str) -> bool:
    """Whether a metric counts errors: its name then says so, as that of ``xsim_error`` does."""
    return "error" in name.split("_")


def mean_scores(per_query: PerQuery) -> dict[str, float]:
    """Average each metric over its queries."""
    return {name: fmean(values.values()) for name, values in per_query.items()}


def tied_boundary_ratio(ranking: Ranking, cutoff: int = 10) -> float:
    """Tell for what share of the queries the results at ranks ``cutoff`` and ``cutoff + 1`` are tied.

    Only the document id decides there who is in. Above 1 % give :func:`score_expected` beside the metric.
    """
    if ranking.scores.shape[1] <= cutoff:
        return 0.0
    return float(np.mean(ranking.scores[:, cutoff - 1] == ranking.scores[:, cutoff]))


def score_expected(ranking: Ranking, metrics: Sequence[str]) -> PerQuery:
    """Compute the values that metrics have on average when tied results are ordered at random.

    Exact for nDCG, recall and precision, which are sums over the ranks; the others are refused. Only ties
    among the results of the run count: a search that cuts a group of tied documents has chosen already.
    """
    for name in metrics:
        if parse_metric(name)[0] not in _ADDITIVE:
            raise UserError(
                "metrics",
                "cannot be averaged over ties",
                got=name,
                cure=f"Use {', '.join(sorted(_ADDITIVE))}",
            )
    starts = np.ones(ranking.scores.shape, dtype=bool)
    starts[:, 1:] = ranking.scores[:, 1:] != ranking.scores[:, :-1]
    group = np.cumsum(starts.ravel()) - 1
    averaged = replace(
        ranking, gains=_average(ranking.gains, group), hits=_average(ranking.hits, group)
    )
    return score_ranking(averaged, metrics)


def parse_metric(name: str) -> tuple[str, int]:
    """Split the name of a metric into its kind and cutoff, or say which names exist."""
    match = re.fullmatch(r"([a-z]+)_at_([1-9][0-9]*)", name)
    if match is None or match[1] not in _FORMULAS:
        raise UserError(
            "metrics",
            "name an unknown metric",
            got=name,
            cure=f"Use {', '.join(_FORMULAS)} with a cutoff, such as ndcg_at_10",
        )
    return match[1], int(match[2])


def _ndcg(ranking: Ranking, cutoff: int) -> Values:
    return _divide(
        _discounted_sum(ranking.gains, cutoff), _discounted_sum(ranking.ideal_gains, cutoff)
    )


def _mrr(ranking: Ranking, cutoff: int) -> Values:
    hits = ranking.hits[:, :cutoff]
    values: Values = np.max(hits / np.arange(1, hits.shape[1] + 1), axis=1, initial=0.0)
    return values


def _map(ranking: Ranking, cutoff: int) -> Values:
    hits = ranking.hits[:, :cutoff]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return _divide((precision * hits).sum(axis=1), ranking.num_relevant)


def _recall(ranking: Ranking, cutoff: int) -> Values:
    return _divide(ranking.hits[:, :cutoff].sum(axis=1), ranking.num_relevant)


def _precision(ranking: Ranking, cutoff: int) -> Values:
    values: Values = ranking.hits[:, :cutoff].sum(axis=1) / cutoff
    return values


_FORMULAS: dict[str, Callable[[Ranking, int], Values]] = {
    "ndcg": _ndcg,
    "mrr": _mrr,
    "map": _map,
    "recall": _recall,
    "precision": _precision,
}
_ADDITIVE = {"ndcg", "recall", "precision"}


def _check_queries(qrels: Qrels, searched: Mapping[str, object] | Sequence[str]) -> None:
    if not qrels:
        raise UserError("qrels", "are empty", cure="Give at least one judged query")
    if searched and not any(query in qrels for query in searched):
        raise UserError(
            "run",
            "shares no query with the qrels",
            got=next(iter(searched)),
            cure="Check that both come from the same data and split",
        )


def _rank(
    qrels: Qrels, rows: Results, documents: list[str], scores: Float64[np.ndarray, " results"]
) -> Ranking:
    query_ids = tuple(qrels)
    if np.isnan(scores).any():
        query = query_ids[rows[np.isnan(scores).argmax()]]
        raise UserError(
            f"run, query {query!r}:", "a score is NaN", cure="Check the embeddings for NaN"
        )
    with np.errstate(over="ignore"):
        scores32 = scores.astype(np.float32)  # as trec_eval stores them: closer scores are tied
    order = np.lexsort((-_document_places(rows, documents), -scores32, rows))
    rows = rows[order]
    labels = [
        qrels[query_ids[row]].get(documents[result], 0)
        for row, result in zip(rows.tolist(), order.tolist(), strict=True)
    ]
    counts = np.bincount(rows, minlength=len(query_ids))
    columns = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    shape = (len(query_ids), int(counts.max()))
    gains = np.zeros(shape)
    gains[rows, columns] = np.maximum(np.array(labels, dtype=np.int64), 0)
    padded_scores = np.full(shape, np.nan, dtype=np.float32)
    padded_scores[rows, columns] = scores32[order]
    ideal = _ideal_gains(qrels)
    hits = (gains > 0).astype(np.float64)
    return Ranking(query_ids, padded_scores, gains, hits, ideal, (ideal > 0).sum(axis=1))


def _document_places(rows: Results, documents: list[str]) -> Results:
    """Number the documents in the order of their ids; refuse one that occurs twice in a row."""
    place_of_document = {document: place for place, document in enumerate(sorted(set(documents)))}
    places = np.array([place_of_document[document] for document in documents], dtype=np.int64)
    if len(np.unique(rows * max(len(place_of_document), 1) + places)) < len(rows):
        raise UserError("run", "lists a document twice for one query", cure="Remove duplicate ids")
    return places


def _ideal_gains(qrels: Qrels) -> Float64[np.ndarray, "queries relevant"]:
    gains = [
        sorted((label for label in labels.values() if label > 0), reverse=True)
        for labels in qrels.values()
    ]
    ideal = np.zeros((len(gains), max(map(len, gains))))
    for row, values in enumerate(gains):
        ideal[row, : len(values)] = values
    return ideal


def _discounted_sum(gains: Places, cutoff: int) -> Values:
    gains = gains[:, :cutoff]
    discounts = 1 / np.log2(np.arange(2, gains.shape[1] + 2))
    sums: Values = gains @ discounts
    return sums


def _divide(numerator: Values, denominator: Values | Int64[np.ndarray, " queries"]) -> Values:
    quotients = np.zeros_like(numerator)
    np.divide(numerator, denominator, out=quotients, where=denominator > 0)
    return quotients


def _average(values: Places, group: Int64[np.ndarray, " places"]) -> Places:
    means = np.bincount(group, values.ravel()) / np.bincount(group)
    averaged: Places = means[group].reshape(values.shape)
    return averaged
