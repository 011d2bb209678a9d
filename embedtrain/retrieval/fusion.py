r"""Lists of several systems become one, by ranks or by scores.

A document's fused score is $\sum_r w_r v_r(d)$ over the lists $r$. With $s$ the score of a document in a list $L$
and $\rho$ its rank, counted from 1:

| rule | $v(d)$ | a document that the list lacks | a list of equal scores |
|---|---|---|---|
| sum | $(s - \min L) / (\max L - \min L)$ | 0 | 1 |
| rrf | $1 / (k + \rho)$ | 0 | as usual |
| max | $s / \max L$; no score below 0 | 0 | 1 |
| zscore | $(s - \mathrm{mean}) / \mathrm{sd}$, of the population | the list's lowest | 0 |
| dbsf | $(s - \mathrm{mean} + 3\,\mathrm{sd}) / 6\,\mathrm{sd}$, of the sample, not clipped | 0 | 0.5 |
| raw | $s$ | the list's lowest | as usual |
| zipper | no score: the lists' first, then their second, each document once | | |

Fused scores are tied often. Equal ones are ordered by the best rank in a list of positive weight, then by row.
What only lists of weight 0 found comes last, so the weights 1 and 0 leave the first list as it is.

Source: Cormack et al. (2009), https://doi.org/10.1145/1571941.1572114 (rrf); Fox and Shaw (1994),
Combination of Multiple Searches (sum); Wrzalik and Krechel (2021), https://arxiv.org/abs/2010.10252 (zipper).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from pydantic import Field, NonNegativeFloat, model_validator

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.ranking import strictly_falling
from embedtrain.section import Section

Rule = Literal["sum", "rrf", "max", "zscore", "dbsf", "raw", "zipper"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Members = Sequence[Sequence[int]]
"""The rows of the units of each document."""
Values = Float64[np.ndarray, "queries results"]
Column = Float64[np.ndarray, "queries 1"]
Used = Bool[np.ndarray, "queries results"]

UNRANKED = 2**62
"""The rank of a document in a list that lacks it."""


class Fusion(Section):
    """How lists become one."""

    rule: Rule = "sum"
    weights: tuple[Weight, ...] | None = None
    """One of each list; None: all count alike."""
    rank_constant: NonNegativeFloat = 60.0
    """The k of rrf: the larger, the less the first ranks stand out."""

    @model_validator(mode="after")
    def _check(self) -> "Fusion":
        if self.weights is not None and not any(self.weights):
            raise ValueError("weights must not all be 0")
        if self.rule == "zipper" and self.weights is not None:
            raise ValueError("zipper takes turns and knows no weights")
        if self.rule == "raw" and self.weights is None:
            raise ValueError("raw adds scores of any size and needs weights")
        return self


@dataclass(frozen=True)
class Listed:
    """One system's results as a rule adds them up."""

    indices: Int64[np.ndarray, "queries results"]
    """-1 is no result."""
    values: Float64[np.ndarray, "queries results"]
    ranks: Int64[np.ndarray, "queries results"]
    missing: Float64[np.ndarray, " queries"]
    """Value of a document that the list lacks."""


@dataclass(frozen=True)
class Pool:
    """Everything that some lists hold, and what each says of it; rows rise, -1 fills up."""

    documents: Int64[np.ndarray, "queries pooled"]
    values: Float64[np.ndarray, "lists queries pooled"]
    ranks: Int64[np.ndarray, "lists queries pooled"]

    def add_up(
        self,
        weights: Sequence[float] | Float64[np.ndarray, "lists queries"],
        num_results: int,
    ) -> SearchResult:
        """Return the documents with the largest sums of weighted values; each query may have its own weights."""
        factors = np.asarray(weights, dtype=np.float64)
        factors = np.broadcast_to(factors.reshape(len(factors), -1), self.values.shape[:2])
        scores = np.einsum("lq,lqp->qp", factors, self.values)
        ranks = np.where(factors[:, :, None] > 0, self.ranks, UNRANKED)
        return _best(self.documents, scores, ranks.min(axis=0), num_results)

    def highest(self, num_results: int) -> SearchResult:
        """Return the documents with the highest value in any list."""
        scores = np.where(self.ranks < UNRANKED, self.values, -np.inf).max(axis=0)
        return _best(self.documents, scores, self.ranks.min(axis=0), num_results)

    def interleave(self, num_results: int) -> SearchResult:
        """Take the first of each list, then the second of each, and every document once."""
        num_lists = len(self.ranks)
        turns = np.arange(num_lists)[:, None, None]
        ranked = self.ranks < UNRANKED
        places = np.where(ranked, np.where(ranked, self.ranks, 0) * num_lists + turns, UNRANKED)
        first, best = places.min(axis=0), self.ranks.min(axis=0)
        return _best(self.documents, -first.astype(np.float64), best, num_results)


def fuse(
    lists: Sequence[SearchResult],
    fusion: Fusion,
    num_results: int,
    members: Sequence[Members | None] | None = None,
) -> SearchResult:
    """Make one list for each query of what several systems found for it, best first.

    Args:
        lists: Of the same queries over the same rows; a system's order counts, whatever its scores.
        fusion: The rule.
        num_results: Documents kept of each query.
        members: For each list None, or the rows that each of its documents stands for: all of them get its value
            and its rank.

    Raises:
        UserError: If weights do not fit, or the rule cannot take the scores.
    """
    weights = weights_for(fusion, len(lists))
    listed = [normalise(one, fusion) for one in lists]
    for number, rows in enumerate(members or ()):
        if rows is not None:
            listed[number] = spread(listed[number], rows)
    pool = pool_lists(listed)
    if fusion.rule == "zipper":
        return pool.interleave(num_results)
    return pool.add_up(weights, num_results)


def weights_for(fusion: Fusion, num_lists: int) -> tuple[float, ...]:
    """Return a weight for each list.

    Raises:
        UserError: If there are more or fewer.
    """
    if fusion.weights is None:
        return (1.0,) * num_lists
    if len(fusion.weights) != num_lists:
        problem = f"are not as many as the {num_lists} systems"
        raise UserError("--weights", problem, got=fusion.weights, cure="Give one of each, in order")
    return fusion.weights


def normalise(found: SearchResult, fusion: Fusion) -> Listed:
    """Turn the scores of a list into what the rule adds up.

    Raises:
        UserError: If there is a score below 0 and the rule cannot take it.
    """
    used = found.indices >= 0
    ranks = np.where(used, np.cumsum(used, axis=1), UNRANKED)
    scores = np.where(used, found.scores, 0.0).astype(np.float64)
    values = np.zeros(scores.shape)
    missing = np.zeros(len(scores))
    match fusion.rule:
        case "sum":
            low, high = _ends(scores, used)
            values = _divided(scores - low, high - low, 1.0)
        case "rrf" | "zipper":
            values = 1 / (fusion.rank_constant + np.where(used, ranks, 1))
        case "max":
            if (scores < 0).any():
                got = float(scores.min())
                raise UserError("--fuse max", "needs scores of 0 or more", got=got, cure="Use sum")
            values = _divided(scores, _ends(scores, used)[1], 1.0)
        case "zscore":
            values = _divided(*_deviations(scores, used, freedom=0), 0.0)
            missing = _ends(values, used)[0][:, 0]
        case "dbsf":
            values = 0.5 + _divided(*_deviations(scores, used, freedom=1), 0.0) / 6
        case "raw":
            values, missing = scores, _ends(scores, used)[0][:, 0]
    return Listed(found.indices, values, ranks, missing)


def spread(listed: Listed, members: Members) -> Listed:
    """Give the value and the rank of each document to all rows that it stands for."""
    rows = [
        [unit for document in own.tolist() if document >= 0 for unit in members[document]]
        for own in listed.indices
    ]
    shape = len(rows), max(map(len, rows), default=0)
    spread_out = replace(
        listed,
        indices=np.full(shape, -1, dtype=np.int64),
        values=np.zeros(shape),
        ranks=np.full(shape, UNRANKED, dtype=np.int64),
    )
    for row, own in enumerate(rows):
        kept = listed.indices[row] >= 0
        times = [len(members[document]) for document in listed.indices[row][kept].tolist()]
        spread_out.indices[row, : len(own)] = own
        spread_out.values[row, : len(own)] = np.repeat(listed.values[row][kept], times)
        spread_out.ranks[row, : len(own)] = np.repeat(listed.ranks[row][kept], times)
    return spread_out


def pool_lists(lists: Sequence[Listed]) -> Pool:
    """Lay lists of the same queries side by side.

    Raises:
        UserError: If there is none, or they are of other queries.
    """
    counts = {len(one.indices) for one in lists}
    if len(counts) != 1:
        raise UserError("fusion", "needs lists of the same queries", got=sorted(counts))
    together = np.concatenate([one.indices for one in lists], axis=1)
    end = int(together.max(initial=-1)) + 1
    rows = np.sort(np.where(together < 0, end, together), axis=1)
    rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = end
    rows = np.sort(rows, axis=1)[:, : max(1, int((rows < end).sum(axis=1).max(initial=0)))]
    lines = np.arange(len(rows))[:, None] * (end + 1)
    keys = (rows + lines).ravel()
    values, ranks = [], []
    for one in lists:
        used = one.indices >= 0
        places = np.searchsorted(keys, (one.indices + lines)[used])
        value = np.repeat(one.missing, rows.shape[1])
        rank = np.full(rows.size, UNRANKED, dtype=np.int64)
        value[places], rank[places] = one.values[used], one.ranks[used]
        values.append(value.reshape(rows.shape))
        ranks.append(rank.reshape(rows.shape))
    return Pool(np.where(rows == end, -1, rows), np.stack(values), np.stack(ranks))


def _best(
    documents: Int64[np.ndarray, "queries pooled"],
    scores: Float64[np.ndarray, "queries pooled"],
    best_ranks: Int64[np.ndarray, "queries pooled"],
    num_results: int,
) -> SearchResult:
    """Order by whether a list that counts has a document, score, best rank and row."""
    kept = min(num_results, documents.shape[1])
    # What is too low to be among the first is passed over before the slow sort.
    level = np.where(best_ranks < UNRANKED, scores, -np.inf)
    level = np.where(documents < 0, np.nan, level)  # NaN comes last in a rising order
    cut = np.partition(-level, kept - 1, axis=1)[:, kept - 1 : kept]
    near = (-level <= cut) | np.isnan(cut)
    width = int(near.sum(axis=1).max(initial=kept))
    columns = np.argsort(~near, axis=1, kind="stable")[:, :width]
    rows, level, ranks = (
        np.take_along_axis(one, columns, axis=1) for one in (documents, level, best_ranks)
    )
    order = np.lexsort((rows, ranks, -np.take_along_axis(scores, columns, axis=1), -level), axis=1)
    order = order[:, :kept]
    result = SearchResult.empty(len(rows), kept)
    result.indices[:] = np.take_along_axis(rows, order, axis=1)
    found = np.take_along_axis(np.take_along_axis(scores, columns, axis=1), order, axis=1)
    filled = result.indices >= 0
    result.scores[:] = strictly_falling(np.where(filled, found, -np.inf).astype(np.float32))
    return result


def _ends(scores: Values, used: Used) -> tuple[Column, Column]:
    """Return the lowest and the highest score of each query, as columns; 0 where it has none."""
    some = used.any(axis=1, keepdims=True)
    low = np.where(used, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(used, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    return np.where(some, low, 0.0), np.where(some, high, 0.0)


def _deviations(scores: Values, used: Used, freedom: int) -> tuple[Values, Column]:
    """Return the distances from the mean of each query, and the deviation, 0 where all are equal."""
    counts = used.sum(axis=1, keepdims=True)
    mean = scores.sum(axis=1, keepdims=True) / np.maximum(counts, 1)
    distances = np.where(used, scores - mean, 0.0)
    square = (distances**2).sum(axis=1, keepdims=True) / np.maximum(counts - freedom, 1)
    low, high = _ends(scores, used)
    return distances, np.where(low == high, 0.0, np.sqrt(square))


def _divided(numerator: Values, denominator: Column, where_zero: float) -> Values:
    quotients = np.full(numerator.shape, where_zero)
    np.divide(numerator, denominator, out=quotients, where=denominator != 0)
    return quotients
