r"""ADR-MSE: the ranks that the scores imply come near those of the teacher."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import score_groups, wanted_order
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class ADRMSE(Objective):
    r"""Compare each document's rank with the smooth rank that the scores give it; errors at the top count most.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{|G_i|} \sum_{a \in G_i} \frac{(r_a - \hat r_a)^2}{\log_2(r_a + 1)},
    \quad \hat r_a = 1 + \sum_{b \in G_i,\; b \ne a} \sigma\left((s_b - s_a)/\tau\right)$$

    r are the ranks by the rows' scores, from 1; documents that these put alike share the mean of their ranks. Where
    rows have no scores, positives come before negatives.

    Also called approximate discounted rank mean squared error. Source: Schlatt et al. (2024), Rank-DistiLLM,
    https://arxiv.org/abs/2405.07920.
    """

    pair_defaults: ClassVar[dict[str, Any]] = {"temperature": 1.0}

    name: Literal["adr_mse"] = "adr_mse"
    temperature: PositiveFloat = 0.05
    """Divides the scores; 1 for a cross-encoder. A temperature that the model learns takes its place."""

    @property
    def uses_pairs(self) -> bool:
        """It compares documents of one query."""
        return True

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        teacher = wanted_order(outputs, groups)
        itself = torch.eye(groups.mask.shape[1], dtype=torch.bool, device=groups.mask.device)
        others = (groups.mask[:, :, None] & groups.mask[:, None] & ~itself).to(groups.scores.dtype)
        logits = groups.scores / temperature
        found = 1 + (torch.sigmoid(logits[:, None] - logits[:, :, None]) * others).sum(2)
        wanted = mean_ranks(teacher, others)
        losses = (wanted - found).square() / torch.log2(wanted + 1) * groups.mask
        return ObjectiveOutput((losses.sum(1) / groups.mask.sum(1)).mean(), {})


def mean_ranks(order: Tensor, others: Tensor) -> Tensor:
    """Return the rank of each document from 1, the mean of them where several are alike."""
    above = (order[:, None] > order[:, :, None]) * others
    alike = (order[:, None] == order[:, :, None]) * others
    return 1 + above.sum(2) + alike.sum(2) / 2
