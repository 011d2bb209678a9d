"""Search by following the neighbours of good documents, for queries whose scores no index knows.

The neighbours of a document are those whose vectors are nearest to its own, whatever the query. A search begins with some
documents, scores the neighbours of the best, and ends when none of the best has neighbours that were not looked at.
What it finds is not exact: compare with a search of all documents.

Source: Killingback et al. (2025), Hypencoder, https://arxiv.org/abs/2502.05364.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64

from embedtrain.interaction_types import GraphSearch
from embedtrain.retrieval.dense.exact import SearchResult, search_exact

Score = Callable[[int, Int64[np.ndarray, " rows"]], Float32[np.ndarray, " rows"]]
"""Gives the scores of documents under a query, by their rows."""


@dataclass(frozen=True)
class NeighbourGraph:
    """Document vectors and the rows of each one's nearest others, nearest first."""

    vectors: Float32[np.ndarray, "documents dim"]
    neighbours: Int64[np.ndarray, "documents neighbours"]

    @classmethod
    def of(
        cls,
        vectors: Float32[np.ndarray, "documents dim"],
        number: int,
        device: torch.device | str = "cpu",
    ) -> "NeighbourGraph":
        """Find the neighbours of all documents, by Euclidean distance; every two documents are compared."""
        # Nearest are the largest x.y - |y|^2 / 2.
        half = np.square(vectors, dtype=np.float32).sum(1, keepdims=True) / 2
        asked = np.concatenate([vectors, np.ones_like(half)], axis=1)
        stored = np.concatenate([vectors, -half], axis=1)
        found = search_exact(asked, stored, min(number + 1, len(vectors)), device=device).indices
        own = found == np.arange(len(vectors))[:, None]
        own[~own.any(1), -1] = True  # of more copies of a vector than neighbours, one goes
        return cls(vectors, found[~own].reshape(len(vectors), -1))


@dataclass(frozen=True)
class Walked:
    """What a search along a graph found, and how many documents it scored for each query."""

    result: SearchResult
    num_scored: Int64[np.ndarray, " queries"]


def walk(
    graph: NeighbourGraph, score: Score, num_queries: int, num_results: int, settings: GraphSearch
) -> Walked:
    """Search for each query; equal scores go by the lower row."""
    total = len(graph.vectors)
    chosen = np.random.default_rng(0).permutation(total)[: max(settings.entries, num_results)]
    kept = max(settings.expanded, num_results)
    indices = np.empty((num_queries, min(num_results, total)), dtype=np.int64)
    scores = np.empty(indices.shape, dtype=np.float32)
    counts = np.empty(num_queries, dtype=np.int64)
    for query in range(num_queries):
        rows, values = _walk_one(graph, score, query, np.sort(chosen), kept, settings)
        best = np.lexsort((rows, -values))[: indices.shape[1]]
        indices[query], scores[query], counts[query] = rows[best], values[best], len(rows)
    return Walked(SearchResult(indices, scores), counts)


def _walk_one(
    graph: NeighbourGraph,
    score: Score,
    query: int,
    rows: Int64[np.ndarray, " rows"],
    kept: int,
    settings: GraphSearch,
) -> tuple[Int64[np.ndarray, " scored"], Float32[np.ndarray, " scored"]]:
    """Return the documents that were scored for a query, and their scores."""
    values = score(query, rows)
    seen = np.zeros(len(graph.vectors), dtype=bool)
    left = np.zeros_like(seen)
    for _ in range(settings.max_steps):
        seen[rows] = True
        best = rows[np.lexsort((rows, -values))[:kept]]
        best = best[~left[best]]
        if not len(best):
            break
        left[best] = True
        near = np.unique(graph.neighbours[best])
        near = near[~seen[near]]
        rows = np.concatenate([rows, near])
        values = np.concatenate([values, score(query, near)])
    return rows, values
