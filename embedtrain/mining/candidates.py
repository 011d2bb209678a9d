"""Candidates of a block of queries side by side, and what speaks against each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64
from numpy.typing import NDArray


class Reason(IntEnum):
    """Why a candidate is no negative; the first that applies counts."""

    KEPT = 0
    UNUSED = 1
    POSITIVE = 2
    DUPLICATE = 3
    EQUALS_QUERY = 4
    GUARDED = 5
    RANK = 6
    SCORE = 7
    GUIDE = 8
    CROSS_ENCODER = 9
    NEW_POSITIVE = 10


@dataclass(frozen=True)
class Candidates:
    """The candidates of a block of queries, source after source.

    Attributes:
        documents: Rows of documents, -1 unused.
        sources: The source of each column.
        ranks: The rank in its source of each column, from 1.
        scores: Under the teacher, -inf unused.
        reasons: Values of :class:`Reason`; filled in by the filters.
    """

    documents: Int64[np.ndarray, "queries candidates"]
    sources: Int64[np.ndarray, " candidates"]
    ranks: Int64[np.ndarray, " candidates"]
    scores: Float64[np.ndarray, "queries candidates"]
    reasons: Int8[np.ndarray, "queries candidates"]

    def reject(self, where: Bool[np.ndarray, "queries candidates"], reason: Reason) -> None:
        """Note a reason against candidates that have none yet."""
        self.reasons[where & (self.reasons == Reason.KEPT)] = reason


def join_sources(found: Sequence[NDArray[np.int64]]) -> Candidates:
    """Lay the results of several sources beside one another; scores are still missing."""
    documents = np.concatenate(found, axis=1)
    widths = [results.shape[1] for results in found]
    return Candidates(
        documents=documents,
        sources=np.repeat(np.arange(len(widths)), widths),
        ranks=np.concatenate([np.arange(1, width + 1) for width in widths]),
        scores=np.full(documents.shape, -np.inf),
        reasons=np.where(documents < 0, Reason.UNUSED, Reason.KEPT).astype(np.int8),
    )


def merge_survivors(
    candidates: Candidates,
    query: int,
    quotas: Sequence[float],
    identities: Int64[np.ndarray, " documents"],
) -> Int64[np.ndarray, " survivors"]:
    """Return the columns of a query's surviving candidates in merged order, each text once.

    The r-th survivor of a source comes at ``r / quota``, so that every first part of the order holds the
    sources in proportion to their quotas. A document that several sources found counts for the one where it
    comes first.
    """
    columns = np.flatnonzero(candidates.reasons[query] == Reason.KEPT)
    sources = candidates.sources[columns]
    place = np.zeros(len(columns))
    for source, quota in enumerate(quotas):
        own = sources == source
        place[own] = np.arange(1, own.sum() + 1) / quota
    columns = columns[np.lexsort((sources, place))]
    texts = identities[candidates.documents[query, columns]]
    _, first = np.unique(texts, return_index=True)
    return columns[np.sort(first)]
