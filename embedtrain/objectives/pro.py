r"""PRO: preference ranking of scored pairs, each against all that score less."""

from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from embedtrain.objectives.base import Objective
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.scored_pairs import scored_pairs
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class PRO(Objective):
    r"""Let each pair win a softmax against the pairs with lower scores, which weigh by how much lower.

    $$\mathcal{L} = -\frac{1}{|K|} \sum_{k \in K} \log \frac{e^{W_k s_k / \tau}}{e^{W_k s_k / \tau} +
    \sum_{j: w_{kj} > \epsilon} e^{w_{kj} s_j / \tau}}, \quad w_{kj} = y_k - y_j,\; W_k = \max_j w_{kj}$$

    K are the pairs, over all ranks, that have a lower one. Stores a number for every two pairs of the batch.

    Source: Song et al. (2023), https://arxiv.org/abs/2306.17492, in the form of CoDiEmb,
    https://github.com/TencentCloudADP/youtu-embedding.
    """

    name: Literal["pro"] = "pro"
    needs_all_queries: ClassVar[bool] = True  # pairs are compared with those of other ranks
    temperature: PositiveFloat = 0.05
    """tau, divides the similarities."""
    tie: NonNegativeFloat = 1.0e-6
    """epsilon: scores no further apart are equal."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        pairs = scored_pairs(outputs)
        logits = pairs.similarity / self.temperature
        weights = pairs.labels[:, None] - pairs.labels[None, :]
        lower = weights > self.tie
        kept = lower.any(1)
        if not kept.any():
            return ObjectiveOutput(logits.sum() * 0, {})
        own = logits * weights.amax(1)
        others = only_where(weights * logits[None, :], lower)
        total = torch.logsumexp(torch.cat([own[:, None], others], 1), 1)
        return ObjectiveOutput((total - own)[kept].mean(), {})
