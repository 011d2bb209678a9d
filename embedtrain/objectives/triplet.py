r"""Triplet loss: the positive is nearer than each negative by a margin."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import Groups, score_triplets
from embedtrain.ops.similarity import single_vectors
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class Triplet(Objective):
    r"""Compare a query's first positive with each of its own negatives.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{|N_i|} \sum_{n \in N_i} \max(0,\, d_{ip} - d_{in} + m)$$

    d is the Euclidean distance, or $1 - s$ with ``distance: similarity``. A query without negatives costs 0.

    Source: Reimers and Gurevych (2019), https://arxiv.org/abs/1908.10084 (Sentence-BERT, Euclidean, m = 1).
    """

    pair_defaults: ClassVar[dict[str, Any]] = {"distance": "similarity"}

    name: Literal["triplet"] = "triplet"
    distance: Literal["euclidean", "similarity"] = "euclidean"
    """Euclidean needs one vector per text."""
    margin: PositiveFloat = 1.0
    """m. Normalised vectors are at most 2 apart, so a smaller one suits a cosine model."""

    @property
    def uses_pairs(self) -> bool:
        """Distances between vectors are none of scores."""
        return self.distance == "similarity"

    @property
    def reads_scores(self) -> bool:
        """Only which documents are positives counts."""
        return False

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups, first = score_triplets(outputs, self.name)
        distances, negatives = self._distances(outputs, groups), groups.negatives
        positive = (distances * first).sum(1, keepdim=True)
        costs = (positive - distances + self.margin).clamp_min(0) * negatives
        satisfied = ((costs == 0) & negatives).sum() / negatives.sum()
        loss = (costs.sum(1) / negatives.sum(1).clamp_min(1)).mean()
        return ObjectiveOutput(loss, {"satisfied_ratio": satisfied.to(loss.dtype)})

    def _distances(
        self, outputs: RetrievalOutputs, groups: Groups
    ) -> Float[Tensor, "queries group"]:
        if self.distance == "similarity":
            return 1 - groups.scores
        place, cure = "objective.distance", "Use similarity"
        query, document = single_vectors(outputs.query, outputs.document, place, cure)
        squared = (query[:, None] - document[groups.columns.clamp_min(0)]).square().sum(2)
        tiny = torch.finfo(squared.dtype).tiny  # the root of 0 has no gradient
        return squared.clamp_min(tiny).sqrt()
