"""The best columns of score matrices: descending score, equal scores by the lower column."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
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
