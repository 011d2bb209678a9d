"""MNTP: masked next-token prediction, which teaches a decoder to use attention in both directions."""

from typing import ClassVar, Literal

from pydantic import Field

from embedtrain.objectives.pretrain.base import PretrainObjective, masked_language_loss
from embedtrain.pretrain_types import Computation, Masking, PretrainOutputs
from embedtrain.types import ObjectiveOutput


class MNTP(PretrainObjective):
    r"""Predict hidden tokens, each from the state of the token before it.

    $$\mathcal{L} = -\frac{1}{|M|} \sum_{t \in M} \log p(x_t \mid h_{t-1}(\tilde{x}))$$

    The head of a decoder was trained to name the next token, so it stays of use. A few hundred steps with
    ``model.attention: bidirectional`` and adapters (``model.lora``) come before contrastive training. A
    hidden first token of a text has no state before it and is not predicted.

    Source: BehnamGhader et al. (2024), LLM2Vec, https://arxiv.org/abs/2404.05961.
    """

    name: Literal["mntp"] = "mntp"
    computation: ClassVar[Computation] = Computation(shifted=True)
    mask_ratio: float = Field(default=0.2, gt=0, lt=1)
    """Share of the ordinary tokens that are hidden."""

    @property
    def masking(self) -> Masking:  # noqa: D102
        return Masking(self.mask_ratio)

    def __call__(self, outputs: PretrainOutputs) -> ObjectiveOutput:  # noqa: D102
        return masked_language_loss(outputs)
