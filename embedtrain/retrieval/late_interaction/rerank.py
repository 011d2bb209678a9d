"""Score the candidates that a fast index proposes exactly, and measure what it missed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.dense.faiss_index import Index, index_bytes, sample_rows
from embedtrain.retrieval.late_interaction.exact import (
    BLOCK_TOKENS,
    ExactIndex,
    LateInteractionIndex,
    check_search,
    cut_blocks,
    search_blocks,
)
from embedtrain.types import TokenEmbeddings, TokenVectors

NUM_SAMPLED_QUERIES = 100
"""Queries on which an index's recall is measured, at most."""


def rerank(
    queries: TokenVectors,
    documents: TokenVectors,
    candidates: Int64[np.ndarray, "queries candidates"],
    num_results: int,
    *,
    device: torch.device | str = "cpu",
) -> SearchResult:
    """Return the best of each query's own candidates by exact scores; ``-1`` is no candidate.

    Candidates may repeat and come in any order; equal scores are ordered by the lower document index.
    Places without a candidate are filled with ``-1`` and ``-inf``.
    """
    check_search(queries, documents, num_results)
    result = SearchResult.empty(len(queries), min(num_results, len(documents)))
    for number, row in enumerate(candidates):
        chosen = np.unique(row[row >= 0])
        if len(chosen) == 0:
            continue
        blocks = _blocks(documents, chosen, device)
        best = search_blocks(queries.part(number, number + 1), blocks, num_results, device)
        found = best.indices.shape[1]
        result.indices[number, :found] = chosen[best.indices[0]]
        result.scores[number, :found] = best.scores[0]
    return result


@dataclass(frozen=True)
class CandidateIndex(ABC):
    """Documents of which a faiss index proposes some, to be scored exactly."""

    documents: TokenVectors
    index: Index
    num_candidates: int
    device: torch.device | str

    @property
    def num_bytes(self) -> int:
        """Bytes of the faiss index and of the vectors."""
        return index_bytes(self.index) + self.documents.nbytes

    @abstractmethod
    def propose(self, queries: TokenVectors, wanted: int) -> Int64[np.ndarray, "queries _"]:
        """Return at least so many candidates of each query, -1 where there are fewer."""

    def search(self, queries: TokenVectors, num_results: int) -> SearchResult:
        """Return the best of each query's candidates, by exact scores."""
        check_search(queries, self.documents, num_results)
        found = self.propose(queries, max(num_results, self.num_candidates))
        return rerank(queries, self.documents, found, num_results, device=self.device)


def recall_against_exact(
    index: LateInteractionIndex,
    exact: ExactIndex,
    queries: TokenVectors,
    num_results: int,
    *,
    num_queries: int = NUM_SAMPLED_QUERIES,
    seed: int = 0,
) -> float:
    """Measure what share of the exact best documents an index finds, on a seeded sample of the queries.

    A document that scores as much as the last exact one counts as found, so ties cost nothing.
    """
    sample = queries.select(sample_rows(len(queries), num_queries, seed))
    truth = exact.search(sample, num_results)
    found = index.search(sample, num_results).indices
    scored = rerank(sample, exact.documents, found, num_results, device=exact.device)
    hits = scored.scores >= truth.scores.min(axis=1, keepdims=True)
    for row, exact_row in enumerate(truth.indices):  # the same document may round differently
        hits[row] |= np.isin(scored.indices[row], exact_row)
    return float((hits & (scored.indices >= 0)).sum() / truth.indices.size)


def _blocks(
    documents: TokenVectors, rows: Int64[np.ndarray, " chosen"], device: torch.device | str
) -> Iterator[TokenEmbeddings]:
    for start, stop in cut_blocks(documents.lengths[rows], BLOCK_TOKENS):
        yield documents.select(rows[start:stop]).tensors(device)
