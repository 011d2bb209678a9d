r"""Reconstruction: any objective on sparse codes, and how well codes rebuild the dense vectors that they stand for."""

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor

from embedtrain.code_types import SparseCode
from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.sparse_code import activations, code_of
from embedtrain.section import Count
from embedtrain.types import ObjectiveOutput, RetrievalOutputs

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective

WIDER = 4
"""A second code keeps so many times as many entries, so that more of them are trained."""


class Reconstruction(Objective):
    r"""Add to an objective what codes lose: $\gamma \mathcal{L} + E(\hat x_k) + w_4 E(\hat x_{4k}) + \beta A$.

    $E(\hat x)$ is the mean squared error of the dense vectors $x$ rebuilt by k or 4k entries, $\hat x = W^\top z +
    b_{in}$. $A$ lets entries rebuild what is left, $e = x - \hat x_k$, that no text has had for ``dead_after`` steps:
    the squared error of $W^\top z_{dead}$ over that of the mean of $e$; it is 0 where none is dead. Each is the mean
    over numbers, then over both sides, queries and candidates of all chunks and ranks; a text that is a candidate twice
    counts twice. $A$ of parts does not average to that of the whole, so ``trainer.accumulate`` is not offered.

    Source: Wen et al. (2025), CSR, https://arxiv.org/abs/2503.01776.
    """

    name: Literal["reconstruction"] = "reconstruction"
    inner: "AnyObjective"
    """What makes codes useful; their scores are inner products, below 1 where dense vectors have length 1."""
    inner_weight: NonNegativeFloat = 1.0
    r"""$\gamma$."""
    wider_weight: NonNegativeFloat = 0.125
    r"""$w_4$."""
    dead_weight: NonNegativeFloat = 0.1
    r"""$\beta$."""
    dead_after: NonNegativeInt = 30
    """Optimizer steps without any text after which an entry is dead."""
    dead_kept: Count = 512
    """Dead entries that rebuild the rest of a text, the largest."""

    @property
    def needs_code(self) -> bool:
        """Always."""
        return True

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        code = outputs.code
        if code is None:
            raise UserError(
                "objective reconstruction",
                "needs codes of dense vectors",
                cure="Set model.head: code",
            )
        result = self.inner(outputs)
        sides = [self._losses(code, vectors) for vectors in (code.query, code.document)]
        lost, wider, rest = torch.stack(sides).mean(0)
        loss = self.inner_weight * result.loss + lost
        loss = loss + self.wider_weight * wider + self.dead_weight * rest
        return ObjectiveOutput(
            loss,
            result.metrics
            | {
                "reconstruction": lost.detach(),
                "reconstruction_wider": wider.detach(),
                "reconstruction_dead": rest.detach(),
                "dead_entries": self._dead(code).double().mean(),
            },
        )

    def _dead(self, code: SparseCode) -> Bool[Tensor, " entries"]:
        return code.idle_steps > self.dead_after

    def _losses(self, code: SparseCode, vectors: Float[Tensor, "texts dim"]) -> Float[Tensor, "3"]:
        """Return the error of k entries, that of 4k, and that of dead ones on what k leave."""
        found = activations(vectors, code.dictionary, code.input_bias, code.code_bias)
        rebuilt, wider = (
            code_of(found, kept) @ code.dictionary + code.input_bias
            for kept in (code.kept, WIDER * code.kept)
        )
        dead = self._dead(code)
        rest = (vectors - rebuilt).detach()
        of_dead = code_of(found.masked_fill(~dead, -torch.inf), self.dead_kept) @ code.dictionary
        spread = F.mse_loss(rest.mean(0).expand_as(rest), rest)
        share = F.mse_loss(of_dead, rest) / torch.where(spread > 0, spread, 1.0)
        return torch.stack(
            [F.mse_loss(rebuilt, vectors), F.mse_loss(wider, vectors), share * dead.any()]
        )
