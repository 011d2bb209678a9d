"""What other vectors mean for a search: the ten best documents, and nDCG where there are judgments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, Int64

from embedtrain.evaluation.measures.metrics import mean_scores, score_run
from embedtrain.types import Similarity

TOP = 10
METRIC = "ndcg_at_10"
TIE = 1e-6
"""Scores so near to each other count as equal."""


@dataclass(frozen=True)
class Scores:
    """Vectors of queries and documents, and what a search makes of them."""

    queries: Float32[np.ndarray, "queries dim"]
    documents: Float32[np.ndarray, "documents dim"]
    similarity: Similarity

    @cached_property
    def matrix(self) -> Float64[np.ndarray, "queries documents"]:
        """The inner products, which are cosines where vectors have length 1."""
        return self.queries.astype(np.float64) @ self.documents.astype(np.float64).T

    def best(self) -> list[list[int]]:
        """Return the documents of each query that score best."""
        order: Int64[np.ndarray, "queries documents"] = np.argsort(-self.matrix, axis=1, kind="stable")  # fmt: skip
        return [row[:TOP].tolist() for row in order]

    def common(self, other: "Scores") -> float:
        """Return which share of the ten best documents is the same; equal scores of ours count as the same."""
        shares = []
        for row, (mine, theirs) in enumerate(zip(self.best(), other.best(), strict=True)):
            least = self.matrix[row, mine[-1]] - TIE
            shares.append(
                np.mean([one in mine or self.matrix[row, one] >= least for one in theirs])
            )
        return float(np.mean(shares))

    def ndcg(self, qrels: Mapping[int, Mapping[int, int]]) -> float:
        """Return the mean nDCG@10 of the queries that have judgments."""
        run = {str(row): {str(place): float(score) for place, score in enumerate(scores)} for row, scores in enumerate(self.matrix) if row in qrels}  # fmt: skip
        judged = {str(row): {str(place): gain for place, gain in one.items()} for row, one in qrels.items()}  # fmt: skip
        return mean_scores(score_run(judged, run, [METRIC]))[METRIC]


def overlap(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """Return the mean share of the documents of ``one`` that ``other`` has."""
    return float(
        np.mean([len({*a} & {*b}) / max(1, len(a)) for a, b in zip(one, other, strict=True)])
    )
