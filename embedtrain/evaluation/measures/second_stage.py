"""A second model orders anew what a first one found: its order at any depth, blends, and the best that was possible.

Results lie in arrays of [queries, depth], best first, as a search returns them. A new order is by falling score of
the second stage and, among equal ones, by the rank of the first. What lies deeper than was scored follows in the
order of the first stage. Scores are written so that trec_eval, which orders equal ones by document id, keeps it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64

from embedtrain.evaluation.measures.metrics import Qrels
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.ranking import strictly_falling

Scores = Float32[np.ndarray, "queries scored"]
DEPTHS = (10, 20, 50, 100, 200, 500, 1000)
"""Depths at which quality and cost are told, as far as results were scored."""


def depths_to(top: int) -> list[int]:
    """Return the depths that are told where ``top`` results were scored; it is the last of them."""
    return [*(depth for depth in DEPTHS if depth < top), top]


def in_trec_order(found: SearchResult, document_ids: Sequence[str]) -> SearchResult:
    """Order results as trec_eval does: by float32 score, equal ones by document id, both falling."""
    unique, places = np.unique(found.indices, return_inverse=True)
    names = ["" if index < 0 else document_ids[index] for index in unique.tolist()]
    rank = np.empty(len(unique), dtype=np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    scores = np.where(found.indices < 0, np.float32(-np.inf), found.scores)
    order = np.lexsort((-rank[places.reshape(found.indices.shape)], -scores), axis=1)
    return SearchResult(
        np.take_along_axis(found.indices, order, axis=1), np.take_along_axis(scores, order, axis=1)
    )


def reorder(found: SearchResult, scores: Scores, depth: int) -> SearchResult:
    """Order the first ``depth`` results anew; strictly falling scores keep the order everywhere.

    Args:
        found: The first stage's results, in its order.
        scores: The second stage's, of the results at the same places; those of unused places are ignored.
        depth: How many results are ordered anew, at most as many as were scored.
    """
    indices = found.indices.copy()
    head = indices[:, :depth]
    new = np.where(head < 0, np.float32(-np.inf), scores[:, :depth])
    order = np.argsort(-new, axis=1, kind="stable")
    indices[:, :depth] = np.take_along_axis(head, order, axis=1)
    values = np.full(indices.shape, -np.inf, dtype=np.float32)
    values[:, :depth] = np.take_along_axis(new, order, axis=1)
    values[:, depth:] = values[:, depth - 1 : depth] - np.arange(1, indices.shape[1] - depth + 1)
    return SearchResult(indices, strictly_falling(values))


def blend(first: Scores, second: Scores, share: float) -> Scores:
    r"""Return ``share`` of the second stage's scores and the rest of the first's, both as z-scores of each query.

    A share of 1 gives the order of the second stage, one of 0 that of the first, exactly. Places that are -inf
    in ``first`` are unused.
    """
    if share == 1:
        return second
    if share == 0:
        return np.zeros_like(second)
    used = np.isfinite(first)
    mixed = share * _z_scores(second, used) + (1 - share) * _z_scores(first, used)
    return mixed.astype(np.float32)


def _z_scores(
    scores: Scores, used: Bool[np.ndarray, "queries scored"]
) -> Float64[np.ndarray, "queries scored"]:
    """Shift and scale the used scores of each query to the mean 0 and the deviation 1; equal ones are 0."""
    values = np.where(used, scores, 0).astype(np.float64)
    counts = np.maximum(used.sum(axis=1, keepdims=True), 1)
    centred = np.where(used, values - values.sum(axis=1, keepdims=True) / counts, 0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / counts)
    scaled = np.zeros_like(centred)
    np.divide(centred, deviation, out=scaled, where=deviation > 0)
    return scaled


def grades(
    qrels: Qrels, query_ids: Sequence[str], document_ids: Sequence[str], found: SearchResult
) -> Float32[np.ndarray, "queries results"]:
    """Return how relevant each result is judged, 0 where it is not: the scores of a second stage that knows."""
    judged = np.zeros(found.indices.shape, dtype=np.float32)
    for row, query in enumerate(query_ids):
        own = qrels.get(query, {})
        for column, index in enumerate(found.indices[row].tolist()):
            if index >= 0:
                judged[row, column] = max(own.get(document_ids[index], 0), 0)
    return judged
