"""Exact search by inner product, block by block, over embeddings in memory or mapped from a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from embedtrain.errors import UserError


@dataclass(frozen=True)
class Candidates:
    """The best documents so far of each query, best first."""

    scores: Float32[Tensor, "queries results"]
    indices: Int64[Tensor, "queries results"]


def no_candidates(num_queries: int, device: torch.device | str) -> Candidates:
    """Return what :func:`merge_candidates` starts from."""
    return Candidates(
        torch.empty(num_queries, 0, device=device),
        torch.empty(num_queries, 0, dtype=torch.int64, device=device),
    )


def best_columns(scores: Float32[Tensor, "queries documents"], num_results: int) -> Candidates:
    """Choose the best columns of each row, ordered by descending score, then ascending column."""
    num_columns = scores.shape[1]
    if num_results >= num_columns:
        columns = torch.arange(num_columns, device=scores.device).expand_as(scores)
    else:
        # One more than wanted: where the last two are equal, topk may have kept any of the tied columns.
        values, columns = scores.topk(num_results + 1, dim=1)
        tied = values[:, -1] == values[:, -2]
        columns = columns[:, :-1]
        if tied.any():
            columns[tied] = _lowest_columns(scores[tied], values[tied, -1:], num_results)
        columns = columns.sort(dim=1).values
    ordered = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    if ordered.values[:, 0].isnan().any():  # sort and topk put NaN first
        raise UserError(
            "search", "met a score that is NaN", cure="Check the embeddings for NaN and infinity"
        )
    return Candidates(ordered.values, columns.gather(1, ordered.indices))


def _lowest_columns(
    scores: Float32[Tensor, "queries documents"],
    boundary: Float32[Tensor, "queries 1"],
    num_results: int,
) -> Int64[Tensor, "queries results"]:
    """Choose all columns above the boundary and fill up with the first ones that equal it."""
    above = scores > boundary
    equal = scores == boundary
    wanted = num_results - above.sum(dim=1, keepdim=True)
    chosen: Bool[Tensor, "queries documents"] = above | (
        equal & (equal.cumsum(dim=1, dtype=torch.int32) <= wanted)
    )
    return chosen.nonzero()[:, 1].view(len(scores), num_results)


def merge_candidates(
    best: Candidates, found: Candidates, first_index: int, num_results: int
) -> Candidates:
    """Join the best so far with those of a later block; a stable sort keeps the lower index first."""
    scores = torch.cat([best.scores, found.scores], dim=1)
    indices = torch.cat([best.indices, found.indices + first_index], dim=1)
    ordered = scores.sort(dim=1, descending=True, stable=True)
    kept = ordered.indices[:, :num_results]
    return Candidates(ordered.values[:, :num_results], indices.gather(1, kept))


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
