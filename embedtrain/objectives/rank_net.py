r"""RankNet on a teacher's order, with LambdaRank's weights if wanted: the listwise objective."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from embedtrain.objectives.base import Objective
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.groups import Groups, score_groups, wanted_order
from embedtrain.types import ObjectiveOutput, RetrievalOutputs

LAMBDA_SHARES = {"lambda_rank": (0.0, 1.0), "ndcg_loss2": (1.0, 0.0), "ndcg_loss2pp": (10.0, 1.0)}
"""How much the weights of NDCG-Loss2 and of LambdaRank count."""


class RankNet(Objective):
    r"""Order each query's documents as the teacher does; how far apart it puts them does not matter.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{\sum_{ab} w_{ab}} \sum_{a,b \in G_i,\; t_a > t_b}
    w_{ab} \log\left(1 + e^{-(s_a - s_b)/\tau}\right)$$

    Pairs that the teacher scores alike are left out, and a query without a pair costs 0. ``uniform``: all weights
    are 1 (RankNet). ``ndcg``: $w_{ab}$ is how much nDCG would lose if a and b swapped the ranks that the
    student gives them, the documents' gains being their teacher scores moved into [0, 1] (LambdaRank).
    With the next three the teacher's scores are graded labels y with gains $2^y - 1$, and the sum is divided by the number
    of pairs, not by their weights (LambdaLoss). ``lambda_rank``: as ``ndcg``, of these gains. ``ndcg_loss2``: $w_{ab}$
    looks at the distance of both ranks alone. ``ndcg_loss2pp``: ten times the latter and once the former. ``mrr``: $w_{ab} = |1/r_a - 1/r_b|$ of the student's ranks,
    divided likewise (UDR's loss over demonstrations). Where rows have no teacher scores, positives come before
    negatives.

    Source: Burges (2010), From RankNet to LambdaRank to LambdaMART, MSR-TR-2010-82; Wang et al. (2018), The
    LambdaLoss framework, CIKM; Li et al. (2023), UDR, https://arxiv.org/abs/2305.04320.
    """

    pair_defaults: ClassVar[dict[str, Any]] = {"temperature": 1.0}

    name: Literal["rank_net"] = "rank_net"
    temperature: PositiveFloat = 0.05
    """Divides the student's scores. A temperature that the model learns takes its place."""
    weights: Literal["uniform", "ndcg", "lambda_rank", "ndcg_loss2", "ndcg_loss2pp", "mrr"] = (
        "uniform"
    )
    """Which pairs matter: all alike, or those at the top most; ``lambda_rank``, ``ndcg_loss2`` and ``ndcg_loss2pp`` are
    for graded labels."""

    @property
    def uses_pairs(self) -> bool:
        """It compares documents of one query."""
        return True

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        teacher = wanted_order(outputs, groups)
        both = groups.mask[:, :, None] & groups.mask[:, None]
        preferred = (teacher[:, :, None] > teacher[:, None]) & both
        weights = preferred.to(groups.scores.dtype)
        if self.weights == "ndcg":
            weights = weights * swap_losses(groups, teacher)
        elif self.weights in LAMBDA_SHARES:
            weights = weights * lambda_weights(groups, teacher, *LAMBDA_SHARES[self.weights])
        elif self.weights == "mrr":
            weights = weights * reciprocal_differences(groups)
        differences = (groups.scores[:, :, None] - groups.scores[:, None]) / temperature
        counted = preferred if self.weights in (*LAMBDA_SHARES, "mrr") else weights
        total = counted.sum((1, 2))
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
    discounts = _discounts(groups)
    discount = discounts[_ranks(groups)]
    swaps = _gain_differences(gains, discounts) * (discount[:, :, None] - discount[:, None])
    return swaps.abs()


@torch.no_grad()
def lambda_weights(groups: Groups, labels: Tensor, by_distance: float, by_swap: float) -> Tensor:
    """Return LambdaLoss's weights of pairs: so many times those of NDCG-Loss2 and of LambdaRank, of nDCG each.

    Labels below 0, which are no grades, are moved up until the lowest of a query is 0.
    """
    least = -only_where(-labels, groups.mask).amax(1, keepdim=True)
    gains = (2 ** (labels - least.clamp_max(0)) - 1).masked_fill(~groups.mask, 0.0)
    discounts, ranks = _discounts(groups, further=1), _ranks(groups)
    swapped = (discounts[ranks][:, :, None] - discounts[ranks][:, None]).abs()
    apart = (ranks[:, :, None] - ranks[:, None]).abs()
    distance = discounts[(apart - 1).clamp_min(0)] - discounts[apart]
    gained = _gain_differences(gains, discounts[:-1]).abs()
    return gained * (by_distance * distance + by_swap * swapped)


@torch.no_grad()
def reciprocal_differences(groups: Groups) -> Tensor:
    """Return by how much the reciprocal ranks of all pairs differ, as the student ranks them."""
    reciprocal = 1 / (_ranks(groups) + 1).to(groups.scores.dtype)
    return (reciprocal[:, :, None] - reciprocal[:, None]).abs()


def _ranks(groups: Groups) -> Tensor:
    """Return the rank that the student gives each document, from 0."""
    order = only_where(groups.scores, groups.mask).argsort(dim=1, descending=True, stable=True)
    return order.argsort(1)


def _discounts(groups: Groups, further: int = 0) -> Tensor:
    """Return nDCG's discounts of all ranks, and of so many further ones."""
    places = torch.arange(groups.mask.shape[1] + further, device=groups.mask.device)
    return 1 / torch.log2(places.to(groups.scores.dtype) + 2)


def _gain_differences(gains: Tensor, discounts: Tensor) -> Tensor:
    """Return the differences of all pairs' gains, as shares of the best DCG that a query can reach."""
    ideal = (gains.sort(1, descending=True).values * discounts).sum(1)[:, None, None]
    return (gains[:, :, None] - gains[:, None]) / ideal.masked_fill(ideal == 0, 1.0)
