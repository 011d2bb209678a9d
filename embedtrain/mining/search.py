"""What every source of candidates is, and how candidates are ordered."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray

SPARE = 8
"""Results fetched beyond the depth: rescoring may reorder those at the cut."""

SearchFunction = Callable[[NDArray[np.int64], int], NDArray[np.int64]]
"""Finds, for the queries at some rows, document rows, best first: ``-1`` fills unused places."""


@dataclass(frozen=True)
class CandidateSource:
    """A search that brings candidates.

    Attributes:
        name: Stands beside each negative in the output.
        quota: Share of the candidates, relative to the other sources' quotas.
        search: From query rows and a depth to document rows.
        report: What the manifest says about it.
    """

    name: str
    quota: float
    search: SearchFunction
    report: dict[str, object]


@runtime_checkable
class EncodedTask(Protocol):
    """The queries and documents of a task under one model: searches exactly, and scores any pair."""

    @property
    def key(self) -> str:
        """A hash of weights, contract and precision."""
        ...

    def score(self, rows: NDArray[np.int64], documents: NDArray[np.int64]) -> NDArray[np.float64]:
        """Score each query with each of its candidates, in float64; -inf for unused places."""
        ...

    def search(self, rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        """Return the best documents; ordered by scores in float64, equal ones by document row."""
        ...


def pair_products(
    queries: np.ndarray, documents: np.ndarray, rows: Int64[np.ndarray, "queries candidates"]
) -> Float64[np.ndarray, "queries candidates"]:
    """Return the inner product of each query with each of its candidates, in float64; -inf for unused.

    Summed pair by pair, not by a matrix product: the result depends on no block, thread or library.
    """
    scores = np.full(rows.shape, -np.inf)
    for number, (query, chosen) in enumerate(zip(queries, rows, strict=True)):
        used = chosen >= 0
        found = np.asarray(documents[chosen[used]], dtype=np.float64)
        scores[number, used] = (found * np.asarray(query, dtype=np.float64)).sum(axis=1)
    return scores


def best_first(
    rows: Int64[np.ndarray, "queries candidates"],
    scores: Float64[np.ndarray, "queries candidates"],
    depth: int,
) -> Int64[np.ndarray, "queries kept"]:
    """Order candidates by falling score, equal ones by row, and cut at ``depth``."""
    order = np.lexsort((rows, -scores), axis=1)[:, :depth]
    return np.take_along_axis(rows, order, axis=1)


def best_rows(scores: Float32[np.ndarray, " documents"], depth: int) -> Int64[np.ndarray, " kept"]:
    """Return the rows of the largest scores above 0, best first; of equal ones the lower row."""
    found = np.flatnonzero(scores > 0)
    if len(found) > depth:
        cut = np.partition(scores[found], len(found) - depth)[len(found) - depth]
        found = found[scores[found] >= cut]
    return found[np.lexsort((found, -scores[found]))][:depth]
