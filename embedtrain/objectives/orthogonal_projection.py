r"""Orthogonal projection: positives point the same way, negatives at right angles, each query by itself."""

from typing import Literal

import torch
from pydantic import PositiveFloat

from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import score_groups
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class OrthogonalProjection(Objective):
    r"""Bring the cosines of positives to 1 and those of a query's own negatives to 0.

    $$\mathcal{L} = \frac{1}{B} \sum_i \Big( \frac{1}{|P_i|} \sum_{p \in P_i} (1 - s_{ip})^k
      + \frac{\gamma}{|N_i|} \sum_{n \in N_i} |s_{in}|^k \Big)$$

    with the positives $P_i$ and negatives $N_i$ that query i brought, and k 1, or 2 with ``distance: squared``. Each side
    is a mean, so that dozens of negatives do not pull the positive to 0 with them. Other queries' documents play no
    part: a batch costs the mean of its single samples, and long documents may be encoded one after the other.

    Source: Ranasinghe et al. (2021), https://arxiv.org/abs/2103.14021; for retrieval with long documents Saad-Falcon et
    al. (2024), https://arxiv.org/abs/2402.07440 (M2-BERT), with a mean over the pairs of both kinds together.
    """

    name: Literal["orthogonal_projection"] = "orthogonal_projection"
    gamma: PositiveFloat = 0.5
    """Weight of the negatives."""
    distance: Literal["absolute", "squared"] = "absolute"
    """How far a cosine is from where it should be; ``squared`` leaves a negative that is nearly orthogonal alone."""

    @property
    def reads_scores(self) -> bool:
        """Only which documents are positives counts."""
        return False

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        errors = torch.where(groups.positives, 1 - groups.scores, groups.scores.abs())
        costs = errors.square() if self.distance == "squared" else errors
        positive, negative = (
            (costs * mask).sum(1) / mask.sum(1).clamp_min(1)
            for mask in (groups.positives, groups.negatives)
        )
        metrics = {"positive": positive.detach().mean(), "negative": negative.detach().mean()}
        return ObjectiveOutput((positive + self.gamma * negative).mean(), metrics)
