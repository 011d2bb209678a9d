"""Condenser: late vector and middle token states must suffice for masked language modelling."""

from typing import Literal

from pydantic import Field

from embedtrain.objectives.pretrain.base import PretrainObjective, reconstruction
from embedtrain.pretrain_types import Computation, Masking, PretrainOutputs
from embedtrain.types import ObjectiveOutput


class Condenser(PretrainObjective):
    r"""Predict the hidden tokens twice: from the last states, and from the late vector with middle states.

    $$\mathcal{L} = \mathcal{L}_{MLM} + \mathcal{L}_{head}$$

    The decoder gets the token states behind the middle layer and, in place of the first, the vector of the
    last layer: the later layers must put into it what the middle tokens lack.

    Source: Gao and Callan (2021), https://arxiv.org/abs/2104.08253.
    """

    name: Literal["condenser"] = "condenser"
    mask_ratio: float = Field(default=0.15, gt=0, lt=1)
    """Share of the ordinary tokens that are hidden."""
    early_layer: float = Field(default=0.5, gt=0, le=1)
    """Behind which share of the layers the token states are taken; 1 makes the head an ordinary deeper MLM."""

    @property
    def masking(self) -> Masking:  # noqa: D102
        return Masking(self.mask_ratio)

    @property
    def computation(self) -> Computation:  # noqa: D102
        return Computation(decoder="plain", early_layer=self.early_layer)

    def __call__(self, outputs: PretrainOutputs) -> ObjectiveOutput:  # noqa: D102
        return reconstruction(outputs)
