"""Small things that every ordered list of results may need."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int64

from embedtrain.retrieval.dense.exact import SearchResult


def strictly_falling(
    scores: Float32[np.ndarray, "queries results"],
) -> Float32[np.ndarray, "queries results"]:
    """Lower scores where they must be for each to lie below the one before it.

    trec_eval orders equal scores by document id: an order that has other reasons is kept by its scores alone.
    """
    values = scores.copy()
    for column in range(1, values.shape[1]):
        below = np.nextafter(values[:, column - 1], np.float32(-np.inf))
        values[:, column] = np.minimum(values[:, column], below)
    return values


def by_owner(
    found: SearchResult, owner: Int64[np.ndarray, " units"], num_results: int
) -> SearchResult:
    """Turn lists of units into lists of what owns them: each owner stands where its best unit stood.

    Args:
        found: Units of each query, best first; -1 is no result.
        owner: The row of each unit's owner.
        num_results: Owners that are kept of each query.
    """
    result = SearchResult.empty(len(found.indices), num_results)
    for row, (units, scores) in enumerate(zip(found.indices, found.scores, strict=True)):
        used = units >= 0
        _, first = np.unique(owner[units[used]], return_index=True)
        places = np.sort(first)[:num_results]
        result.indices[row, : len(places)] = owner[units[used][places]]
        result.scores[row, : len(places)] = scores[used][places]
    return result


def find_owners(
    find: Callable[[int], SearchResult], owner: Int64[np.ndarray, " units"], num_results: int
) -> SearchResult:
    """Find what owns the best units, each owner where its best unit stands.

    More and more units are fetched until every query has its owners, so that the list is that of a search for all.

    Args:
        find: Finds so many units of each query.
        owner: The row of each unit's owner.
        num_results: Owners that are kept of each query.
    """
    fetched = min(len(owner), 2 * num_results)
    while True:
        found = find(fetched)
        owners = by_owner(found, owner, num_results)
        complete = (owners.indices[:, -1] >= 0) | (found.indices[:, -1] < 0)
        if fetched == len(owner) or complete.all():
            return owners
        fetched = min(len(owner), 2 * fetched)
