"""Exact search by inner product, block by block, over embeddings in memory or mapped from a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.ranking import (
    Candidates,
    best_columns,
    merge_candidates,
    no_candidates,
)

SCORES_PER_BLOCK = 2**22
"""Scores held at once (16 MiB in float32)."""


@dataclass(frozen=True)
class SearchResult:
    """The best documents of each query, best first; ``-1`` and ``-inf`` fill places without a result."""

    indices: Int64[np.ndarray, "queries results"]
    scores: Float32[np.ndarray, "queries results"]

    @classmethod
    def empty(cls, num_queries: int, num_results: int) -> "SearchResult":
        """Return places to be filled."""
        shape = num_queries, num_results
        return cls(np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))

    @classmethod
    def of_blocks(cls, best: Sequence[Candidates]) -> "SearchResult":
        """Join what was found for consecutive blocks of queries."""
        return cls(
            torch.cat([block.indices for block in best]).cpu().numpy(),
            torch.cat([block.scores for block in best]).cpu().numpy(),
        )


def search_exact(
    queries: Float[np.ndarray, "queries dim"] | Float[Tensor, "queries dim"],
    documents: Float[np.ndarray, "documents document_dim"]
    | Float[Tensor, "documents document_dim"],
    num_results: int,
    *,
    block_size: int = 16_384,
    device: torch.device | str = "cpu",
) -> SearchResult:
    """Find the documents with the largest inner products, in float32.

    Equal scores are ordered by the lower document index, also at the cut. Documents are read once, in
    blocks of ``block_size``; memory grows with queries times results, not with the documents. Fewer
    documents than ``num_results`` give that many columns.

    The result does not depend on ``block_size`` but for rounding: a matrix product of another shape may
    differ in the last bits of a score (about 1e-7 of the norms), which can swap two documents that close.
    The same ``block_size`` on the same machine with the same threads repeats bit for bit.
    """
    _check(queries, documents, num_results, block_size)
    query_block = max(1, SCORES_PER_BLOCK // block_size)
    query_blocks = [
        _load(queries[start : start + query_block], device)
        for start in range(0, len(queries), query_block)
    ]
    best = [no_candidates(len(block), device) for block in query_blocks]
    for start in range(0, len(documents), block_size):
        block = _load(documents[start : start + block_size], device)
        for number, query_embeddings in enumerate(query_blocks):
            found = best_columns(query_embeddings @ block.T, num_results)
            best[number] = merge_candidates(best[number], found, start, num_results)
    return SearchResult.of_blocks(best)


def _check(
    queries: np.ndarray | Tensor, documents: np.ndarray | Tensor, num_results: int, block_size: int
) -> None:
    for side, embeddings in (("queries", queries), ("documents", documents)):
        if len(embeddings) == 0:
            raise UserError("search", f"has no {side}", cure=f"Give at least one of the {side}")
    if queries.shape[1] != documents.shape[1]:
        raise UserError(
            "search",
            f"needs embeddings of one dimension; documents have {documents.shape[1]}, queries",
            got=queries.shape[1],
            cure="Encode both with the same model",
        )
    for name, value in (("num_results", num_results), ("block_size", block_size)):
        if value < 1:
            raise UserError("search", f"{name} must be at least 1", got=value)


def _load(
    embeddings: Float[np.ndarray, "texts dim"] | Float[Tensor, "texts dim"],
    device: torch.device | str,
) -> Float32[Tensor, "texts dim"]:
    if isinstance(embeddings, np.ndarray):
        # A copy: torch warns of read-only memory, which is what a mapped file is.
        embeddings = torch.from_numpy(np.array(embeddings, dtype=np.float32))
    return embeddings.detach().to(device, torch.float32)
