r"""Recovery: an objective on the bits of tokens, and a price for what they do not say of the vectors that they stand for."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.types import ObjectiveOutput, RetrievalOutputs

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective


class Recovery(Objective):
    r"""Add to an objective on bits of tokens how far a linear map of the bits is from the vectors they were made of.

    $$\mathcal{L} = \mathcal{L}_\mathrm{inner} + \lambda\, \mathrm{mean}_i\, \mathrm{mean}_{d \in D_i}\,
    \mathrm{mean}_{t \in d}\, \lVert R\, b_t - \mathrm{sg}(h_t) \rVert^2$$

    over the tokens t of query i's documents $D_i$, with vectors h and signs b of length 1. The model trains R
    (``model.recovery``); exports leave it out. Of Gaussian vectors signs miss 0.36 at best.

    Source: BTR, Cao et al. (2024), https://arxiv.org/abs/2310.01329, has an objective of recovery; its training code is not
    published, and this form is ours.
    """

    name: Literal["recovery"] = "recovery"
    uses_recovery: ClassVar[bool] = True
    inner: "AnyObjective"
    """What the bits are trained on."""
    weight: NonNegativeFloat = 0.1
    """Lambda."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        if outputs.recovery is None:
            problem = "recovery needs a model that gives vectors back from bits"
            raise UserError("objective", problem, cure="Set model.recovery: true")
        result = self.inner(outputs)
        metrics = dict(result.metrics) | {"recovery": outputs.recovery.detach()}
        return ObjectiveOutput(result.loss + self.weight * outputs.recovery, metrics)
