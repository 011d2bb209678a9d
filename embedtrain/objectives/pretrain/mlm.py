"""MLM: masked language modelling, the baseline that pre-training for retrieval is compared with."""

from typing import ClassVar, Literal

from pydantic import Field

from embedtrain.objectives.pretrain.base import PretrainObjective, masked_language_loss
from embedtrain.pretrain_types import Computation, Masking, PretrainOutputs
from embedtrain.types import ObjectiveOutput


class MLM(PretrainObjective):
    r"""Predict hidden tokens from those around them.

    $$\mathcal{L} = -\frac{1}{|M|} \sum_{t \in M} \log p(x_t \mid \tilde{x})$$

    Whole words are hidden; 80 % of their tokens become the mask token, 10 % a random one, 10 % stay.

    Source: Devlin et al. (2019), https://arxiv.org/abs/1810.04805.
    """

    name: Literal["mlm"] = "mlm"
    computation: ClassVar[Computation] = Computation()
    keeps_head: ClassVar[bool] = True
    mask_ratio: float = Field(default=0.3, gt=0, lt=1)
    """Share of the ordinary tokens that are hidden; BERT hid 0.15, the methods here hide 0.3."""

    @property
    def masking(self) -> Masking:  # noqa: D102
        return Masking(self.mask_ratio)

    def __call__(self, outputs: PretrainOutputs) -> ObjectiveOutput:  # noqa: D102
        return masked_language_loss(outputs)
