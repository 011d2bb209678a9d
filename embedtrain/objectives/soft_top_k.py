r"""Soft top-k: put the positives among the k best, without asking that they be the very best."""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveFloat
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.row_blocks import RowLosses, Rows, candidate_masks, mean_over_queries
from embedtrain.ops.similarity import all_scores
from embedtrain.section import Count
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs

BISECTIONS = 40


class SoftTopK(Objective):
    r"""Make each positive one of the k best candidates of its query.

    $$\mathcal{L} = -\frac{1}{B} \sum_i \frac{1}{|P_i|} \sum_{p \in P_i} \log \sigma(\alpha(s_{ip}/\tau + t_i))
    \quad\text{with}\quad \sum_j \sigma(\alpha(s_{ij}/\tau + t_i)) = k$$

    The sum runs over all candidates of the batch, over all ranks, without known positives that are not among
    $P_i$; over all labels, as in DEXML's paper, with ``data.candidates: all``. Positives do not compete with each
    other as long as they are no more than k.

    Source: Gupta et al. (2024), https://arxiv.org/abs/2310.10636.
    """

    name: Literal["soft_top_k"] = "soft_top_k"
    k: Count = 5
    """How many candidates may be best; fewer than the batch has."""
    alpha: PositiveFloat = 2.0
    """How sharply the k-th is told from the next."""
    temperature: PositiveFloat = 0.05
    """Divides the scores. A temperature that the model learns takes its place."""

    @property
    def takes_labels(self) -> bool:
        """Every candidate is compared with every query."""
        return True

    @property
    def reads_scores(self) -> bool:
        """Only which documents are positives counts."""
        return False

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        if self.k >= len(outputs.document):
            raise UserError(
                "objective.k", "must be less than the documents of a batch", got=self.k,
                cure="Lower it or raise trainer.batch_size",
            )  # fmt: skip

        def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
            positive, negative = candidate_masks(outputs, rows)
            scores = all_scores(query, document) / temperature
            logits = top_k_log_sigmoid(scores, positive | negative, self.k, self.alpha)
            own = positive.to(logits.dtype)
            return -(logits * own).sum(1) / own.sum(1)

        mean = mean_over_queries(outputs, loss)
        return ObjectiveOutput(mean, {"probability_inside": mean.detach().neg().exp()})


def top_k_log_sigmoid(
    scores: Float[Tensor, "queries documents"],
    mask: Bool[Tensor, "queries documents"],
    k: int,
    alpha: float,
) -> Float[Tensor, "queries documents"]:
    """Return log sigma(alpha (score + t)), t making the sigmoids of each row sum to k; 0 outside ``mask``.

    The gradient contains how t follows the scores, which bisection alone would hide. A row with no more
    than k candidates has t at the end of the bracket: all of them are inside.
    """
    result: Tensor = _TopKLogSigmoid.apply(scores, mask, k, alpha)  # type: ignore[no-untyped-call]
    return result


class _TopKLogSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor, k: int, alpha: float) -> Tensor:  # noqa: ANN401
        limit = torch.finfo(scores.dtype).max
        low = -scores.masked_fill(~mask, -limit).amax(1, keepdim=True) - 10 / alpha
        high = -scores.masked_fill(~mask, limit).amin(1, keepdim=True) + 10 / alpha
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            sums = (torch.sigmoid(alpha * (scores + middle)) * mask).sum(1, keepdim=True)
            low, high = torch.where(sums < k, middle, low), torch.where(sums < k, high, middle)
        shifted = alpha * (scores + (low + high) / 2)
        ctx.save_for_backward(torch.sigmoid(shifted).masked_fill(~mask, 0.0), mask)
        ctx.alpha = alpha
        return torch.nn.functional.logsigmoid(shifted).masked_fill(~mask, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        inside, mask = ctx.saved_tensors
        direct = (gradient * ctx.alpha * (1 - inside)).masked_fill(~mask, 0.0)
        slopes = ctx.alpha * inside * (1 - inside)
        total = slopes.sum(1, keepdim=True)
        share = slopes / total.masked_fill(total == 0, 1.0)
        return direct - direct.sum(1, keepdim=True) * share, None, None, None
