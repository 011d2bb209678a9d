"""Exact search by inner product, block by block, over embeddings in memory or mapped from a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int32, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.packed import upload
from embedtrain.precision import computing


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
    """Choose the best columns of each row, ordered by descending score, then ascending column.

    NaN comes first, so that it is in every result that it touches: :func:`refuse_nan`.
    """
    if scores.device.type == "cuda":
        return best_by_key(scores, num_results)
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
    return Candidates(ordered.values, columns.gather(1, ordered.indices))


def best_by_key(scores: Float32[Tensor, "queries documents"], num_results: int) -> Candidates:
    """Do what :func:`best_columns` does without asking what the scores are: a GPU need not be waited for.

    A score and its column become one integer: the bits of the score, turned so that they order as it does, above
    the column, turned so that the lower one wins. No two are equal, so a plain topk is exact at the cut as well.
    """
    # Adding 0 makes -0 equal to 0; NaN may have a sign, which would put it last.
    bits = torch.where(scores.isnan(), torch.nan, scores + 0.0).view(torch.int32)
    columns = torch.arange(scores.shape[1], device=scores.device)
    keys = (_turned(bits).long() << 32) | (LOWER - columns)
    best = keys.topk(min(num_results, scores.shape[1]), dim=1).values
    found = _turned((best >> 32).int()).view(torch.float32)
    return Candidates(found, LOWER - (best & LOWER))


def _turned(bits: Int32[Tensor, "_ _"]) -> Int32[Tensor, "_ _"]:
    """Let the bits of float32 order as integers do; twice gives them back."""
    return bits ^ ((bits >> 31) & 0x7FFF_FFFF)


def refuse_nan(scores: Float32[np.ndarray, "queries results"]) -> None:
    """Refuse results that begin with NaN, as all do that met one."""
    if np.isnan(scores[:, :1]).any():
        raise UserError(
            "search", "met a score that is NaN", cure="Check the embeddings for NaN and infinity"
        )


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


LOWER = 0xFFFF_FFFF
"""The lower half of a key."""
SCORES_PER_BLOCK = {"cpu": 2**22, "cuda": 2**26}
"""Scores held at once: 16 MiB in float32 on a CPU; on a GPU 256 MiB, and four times that for their keys."""
DOCUMENTS_PER_BLOCK = {"cpu": 16_384, "cuda": 65_536}
"""Documents read at once."""
RESIDENT = 0.5
"""Share of a GPU's free memory that documents may take to stay there."""


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
        scores = torch.cat([block.scores for block in best]).cpu().numpy()
        refuse_nan(scores)
        return cls(torch.cat([block.indices for block in best]).cpu().numpy(), scores)


def search_exact(
    queries: Float[np.ndarray, "queries dim"] | Float[Tensor, "queries dim"],
    documents: Float[np.ndarray, "documents document_dim"]
    | Float[Tensor, "documents document_dim"],
    num_results: int,
    *,
    block_size: int | None = None,
    device: torch.device | str = "cpu",
) -> SearchResult:
    """Find the documents with the largest inner products, in float32 on any device: never TF32 or autocast.

    Equal scores are ordered by the lower document index, also at the cut. Documents are read once, in
    blocks of ``block_size`` (None: as suits the device); memory grows with queries times results, not with the documents. Fewer
    documents than ``num_results`` give that many columns.

    The result does not depend on ``block_size`` but for rounding: a matrix product of another shape may
    differ in the last bits of a score (about 1e-7 of the norms), which can swap two documents that close.
    The same ``block_size`` on the same machine with the same threads repeats bit for bit.
    """
    kind = torch.device(device).type
    block_size = DOCUMENTS_PER_BLOCK[kind] if block_size is None else block_size
    _check(queries, documents, num_results, block_size)
    query_block = max(1, SCORES_PER_BLOCK[kind] // block_size)
    query_blocks = [
        _load(queries[start : start + query_block], device)
        for start in range(0, len(queries), query_block)
    ]
    best = [no_candidates(len(block), device) for block in query_blocks]
    with computing("fp32", kind):
        for start in range(0, len(documents), block_size):
            block = _load(documents[start : start + block_size], device)
            for number, query_embeddings in enumerate(query_blocks):
                found = best_columns(query_embeddings @ block.T, num_results)
                best[number] = merge_candidates(best[number], found, start, num_results)
    return SearchResult.of_blocks(best)


def resident(
    documents: Float[np.ndarray, "documents dim"], device: torch.device | str
) -> Float[np.ndarray, "documents dim"] | Float32[Tensor, "documents dim"]:
    """Return documents on a GPU if they fit well there, for many searches of a few queries; else as they are."""
    if torch.device(device).type != "cuda":
        return documents
    free, _ = torch.cuda.mem_get_info(device)
    if len(documents) * documents.shape[1] * 4 > RESIDENT * free:
        return documents
    there = torch.empty(documents.shape, dtype=torch.float32, device=device)
    size = DOCUMENTS_PER_BLOCK["cuda"]
    for start in range(0, len(documents), size):
        # Through pageable memory: an upload would pin what it copies, which the process then keeps.
        block = _load(documents[start : start + size], "cpu")
        there[start : start + size].copy_(block)
    return there


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
    values = embeddings.detach().float()
    return upload(values, device) if values.device.type == "cpu" else values.to(device)
