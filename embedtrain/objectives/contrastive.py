r"""Contrastive loss: pairs that belong together come close, others keep a margin."""

from typing import Literal

from pydantic import PositiveFloat

from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import score_groups, teacher_groups
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class Contrastive(Objective):
    r"""Pull pairs with label 1 together and push pairs with label 0 beyond a margin.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{2 |G_i|} \sum_{c \in G_i} y_{ic}\, d_{ic}^2 +
    (1 - y_{ic}) \max(0, m - d_{ic})^2, \quad d = 1 - s$$

    A label between 0 and 1 takes its share of both. Only the documents that a query brought take part.

    Source: Hadsell et al. (2006), Dimensionality Reduction by Learning an Invariant Mapping.
    """

    name: Literal["contrastive"] = "contrastive"
    margin: PositiveFloat = 0.5
    """m, the cosine distance from which on a pair with label 0 costs nothing."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        labels = teacher_groups(outputs, groups)
        distances = 1 - groups.scores
        pulled = labels * distances.square()
        pushed = (1 - labels) * (self.margin - distances).clamp_min(0).square()
        costs = (pulled + pushed) / 2 * groups.mask
        return ObjectiveOutput((costs.sum(1) / groups.mask.sum(1)).mean(), {})
