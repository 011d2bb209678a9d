"""CoT-MAE: the vector of one span must help to rebuild another span of the same document."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat

from embedtrain.objectives.pretrain.base import PretrainObjective, reconstruction
from embedtrain.pretrain_types import Computation, Masking, PretrainOutputs
from embedtrain.types import ObjectiveOutput


class CoTMAE(PretrainObjective):
    r"""Predict hidden tokens of a span, and of its neighbour from that neighbour's rest and the span's vector.

    $$\mathcal{L} = \mathcal{L}_{MLM} + \lambda\, \mathcal{L}_{dec}, \quad
    \mathcal{L}_{dec} = -\frac{1}{|M'|} \sum_{t \in M'} \log p(b_t \mid h_a, \tilde{b})$$

    Both spans of a pair play both parts. Masks of encoder and decoder are independent. ``data.pairs`` says
    which spans make a pair.

    Source: Wu et al. (2023), https://arxiv.org/abs/2208.07670.
    """

    name: Literal["cot_mae"] = "cot_mae"
    computation: ClassVar[Computation] = Computation(decoder="plain")
    encoder_mask_ratio: float = Field(default=0.3, gt=0, lt=1)
    """Share of the ordinary tokens hidden from the encoder."""
    decoder_mask_ratio: float = Field(default=0.45, gt=0, lt=1)
    """Share of the ordinary tokens hidden from the decoder."""
    decoder_weight: NonNegativeFloat = 1.0
    r"""$\lambda$."""

    @property
    def masking(self) -> Masking:  # noqa: D102
        return Masking(self.encoder_mask_ratio, self.decoder_mask_ratio, pairs=True)

    def __call__(self, outputs: PretrainOutputs) -> ObjectiveOutput:  # noqa: D102
        return reconstruction(outputs, self.decoder_weight)
