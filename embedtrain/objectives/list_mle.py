r"""ListMLE: the whole order of a query's documents becomes likely."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.groups import Groups, score_groups, wanted_order
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class ListMLE(Objective):
    r"""Draw the documents of a query one after another by their scores: the given order should be likely.

    $$\mathcal{L} = \frac{1}{B} \sum_i \sum_{a \in G_i} w_a \left( \log \Big( e^{s_a/\tau} +
    \sum_{b \in G_i,\; t_b < t_a} e^{s_b/\tau} \Big) - s_a/\tau \right)$$

    t are the rows' scores; where there are none, positives come before negatives. Documents that t puts alike do not
    compete, so their order in the row plays no part, and the lowest of a query cost nothing. ``uniform``: all w are 1
    (ListMLE). ``top``: $w_a \propto 2^{n-r_a} - 1$ for rank $r_a$ of n, so that mistakes at the top cost most
    (PListMLE); documents put alike share the mean of their ranks' weights.

    Source: Xia et al. (2008), Listwise approach to learning to rank, ICML; ``top``: Lan et al. (2014),
    Position-aware ListMLE, UAI.
    """

    pair_defaults: ClassVar[dict[str, Any]] = {"temperature": 1.0}

    name: Literal["list_mle"] = "list_mle"
    temperature: PositiveFloat = 0.05
    """Divides the scores; 1 for a cross-encoder. A temperature that the model learns takes its place."""
    weights: Literal["uniform", "top"] = "uniform"
    """Which places of the order matter: all alike, or the first most."""

    @property
    def uses_pairs(self) -> bool:
        """It compares documents of one query."""
        return True

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        logits = groups.scores / temperature
        order = wanted_order(outputs, groups)
        both = groups.mask[:, :, None] & groups.mask[:, None]
        below = (order[:, :, None] > order[:, None]) & both
        itself = torch.eye(below.shape[1], dtype=torch.bool, device=below.device)
        rivals = only_where(logits[:, None].expand(below.shape), below | itself)
        losses = (rivals.logsumexp(2) - logits) * groups.mask
        if self.weights == "top":
            losses = losses * place_weights(order, groups)
        return ObjectiveOutput(losses.sum(1).mean(), {})


def place_weights(order: Tensor, groups: Groups) -> Tensor:
    """Return the weight of each document by its place in the order; they add up to 1 for a query."""
    mask, dtype = groups.mask, groups.scores.dtype
    ranks = only_where(order, mask).argsort(dim=1, descending=True, stable=True).argsort(1)
    size = mask.sum(1, keepdim=True).to(dtype)
    weights = (2 ** -(ranks.to(dtype) + 1) - 2**-size) * mask  # over 2 ** size: no overflow
    total = weights.sum(1, keepdim=True)
    weights = weights / total.masked_fill(total == 0, 1.0)
    alike = ((order[:, :, None] == order[:, None]) & mask[:, None]).to(dtype)
    return (alike * weights[:, None]).sum(2) / alike.sum(2).clamp_min(1.0)
