"""What a contrast compares in place of the vectors while a model trains: two layers with batch norm between."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from embedtrain.section import Count, Section

SMALL = 1e-5
"""Added to variances."""


class ContrastHeadConfig(Section):
    """Layers that training puts behind the vectors; exports leave them out."""

    dim: Count = 256
    """Dimension of what is compared."""
    momentum: float = Field(default=0.1, gt=0, le=1)
    """Share of a batch's statistics in the running ones."""


class Statistics(NamedTuple):
    """What a batch says of the inner layer, without gradient."""

    mean: Float[Tensor, " width"]
    variance: Float[Tensor, " width"]


class ContrastHead(nn.Module):
    r"""Compute $z = u / \lVert u \rVert$, $u = W_2\, \mathrm{relu}(BN(W_1 e)) + b$.

    $BN$ takes mean and variance from the texts at hand or from those before (running). A vector by the running
    statistics does not depend on the texts beside it. The running ones change by :meth:`learn` alone.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, width: int, config: ContrastHeadConfig) -> None:
        super().__init__()
        self.momentum = config.momentum
        self.inner = nn.Linear(width, width, bias=False)
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.outer = nn.Linear(width, config.dim)
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(width))

    def forward(
        self, vectors: Float[Tensor, "texts width"], *, of_batch: bool
    ) -> tuple[Float[Tensor, "texts dim"], Statistics | None]:
        """Return what is compared and, with ``of_batch``, the statistics that it was normalised by."""
        inner = self.inner(vectors)
        mean, variance, found = self.running_mean, self.running_variance, None
        if of_batch:
            mean, variance = inner.mean(0), inner.var(0, correction=0)
            unbiased = variance.detach() * len(inner) / max(1, len(inner) - 1)
            found = Statistics(mean.detach(), unbiased)
        normed = (inner - mean) * (variance + SMALL).rsqrt() * self.scale + self.shift
        return F.normalize(self.outer(normed.relu()), dim=1), found

    @torch.no_grad()
    def learn(self, statistics: Statistics) -> None:
        """Move the running statistics towards those of a batch."""
        self.running_mean.lerp_(statistics.mean, self.momentum)
        self.running_variance.lerp_(statistics.variance, self.momentum)
