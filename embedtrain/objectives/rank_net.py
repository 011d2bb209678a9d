r"""RankNet on a teacher's order, with LambdaRank's weights if wanted: the listwise objective."""

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from embedtrain.objectives.base import Objective
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.groups import Groups, score_groups, teacher_groups
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class RankNet(Objective):
    r"""Order each query's documents as the teacher does; how far apart it puts them does not matter.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{\sum_{ab} w_{ab}} \sum_{a,b \in G_i,\; t_a > t_b}
    w_{ab} \log\left(1 + e^{-(s_a - s_b)/\tau}\right)$$

    Pairs that the teacher scores alike are left out, and a query without a pair costs 0. ``uniform``: all weights
    are 1 (RankNet). ``ndcg``: $w_{ab}$ is how much nDCG would lose if a and b swapped the ranks that the
    student gives them, the documents' gains being their teacher scores moved into [0, 1] (LambdaRank). Where rows have
    no teacher scores, positives come before negatives.

    Source: Burges (2010), From RankNet to LambdaRank to LambdaMART, MSR-TR-2010-82.
    """

    name: Literal["rank_net"] = "rank_net"
    temperature: PositiveFloat = 0.05
    """Divides the student's scores. A temperature that the model learns takes its place."""
    weights: Literal["uniform", "ndcg"] = "uniform"
    """Which pairs matter: all alike, or those at the top most."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        if outputs.relevance.teacher_scores is None:
            teacher = groups.positives.to(groups.scores.dtype)
        else:
            teacher = teacher_groups(outputs, groups)
        both = groups.mask[:, :, None] & groups.mask[:, None]
        preferred = (teacher[:, :, None] > teacher[:, None]) & both
        weights = preferred.to(groups.scores.dtype)
        if self.weights == "ndcg":
            weights = weights * swap_losses(groups, teacher)
        differences = (groups.scores[:, :, None] - groups.scores[:, None]) / temperature
        total = weights.sum((1, 2))
        losses = (weights * F.softplus(-differences)).sum((1, 2))
        losses = losses / total.masked_fill(total == 0, 1.0)
        right = (differences.detach() > 0) & preferred
        accuracy = right.sum() / preferred.sum().clamp_min(1)
        return ObjectiveOutput(losses.mean(), {"pair_accuracy": accuracy.to(losses.dtype)})


@torch.no_grad()
def swap_losses(groups: Groups, teacher: Tensor) -> Tensor:
    """Return for each pair by how much nDCG changes if the two swap the ranks the student gives them."""
    mask = groups.mask
    highest = only_where(teacher, mask).amax(1, keepdim=True)
    least = -only_where(-teacher, mask).amax(1, keepdim=True)
    spread = (highest - least).masked_fill(highest == least, 1.0)
    gains = ((teacher - least) / spread).masked_fill(~mask, 0.0)
    order = only_where(groups.scores, mask).argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(1)
    discounts = 1 / torch.log2(torch.arange(mask.shape[1], device=mask.device) + 2.0)
    discounts = discounts.to(teacher.dtype)
    ideal = (gains.sort(1, descending=True).values * discounts).sum(1)[:, None, None]
    discount = discounts[ranks]
    swaps = (gains[:, :, None] - gains[:, None]) * (discount[:, :, None] - discount[:, None])
    return swaps.abs() / ideal.masked_fill(ideal == 0, 1.0)
