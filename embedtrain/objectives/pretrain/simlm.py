"""SimLM: replaced language modelling; a generator puts plausible tokens where others are hidden."""

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from embedtrain.objectives.pretrain.base import PretrainObjective, reconstruction
from embedtrain.ops.linear_cross_entropy import linear_cross_entropy
from embedtrain.pretrain_types import Computation, Masking, PretrainOutputs
from embedtrain.types import ObjectiveOutput


class SimLM(PretrainObjective):
    r"""Restore a text of which a generator replaced tokens, once in the encoder and once in the decoder.

    $$\mathcal{L} = \mathcal{L}_{enc} + \mathcal{L}_{dec} + \lambda \mathcal{L}_{gen}$$

    Both restore all ordinary tokens; the decoder sees its own, more strongly replaced text and of the encoder
    the vector alone. Most tokens are copies, so the loss looks low: read it beside ``encoder_changed_ratio``.
    $\mathcal{L}_{gen}$ counts only where the generator is trained along; samples carry no gradient.

    Source: Wang et al. (2022), https://arxiv.org/abs/2207.02578.
    """

    name: Literal["simlm"] = "simlm"
    computation: ClassVar[Computation] = Computation(
        decoder="plain", all_tokens=True, decode_all_tokens=True, generator=True
    )
    encoder_mask_ratio: float = Field(default=0.3, gt=0, lt=1)
    """Share of the ordinary tokens that the generator fills for the encoder."""
    decoder_mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    """The same for the decoder, the encoder's among them."""
    generator_weight: NonNegativeFloat = 0.2
    """Weight of the generator's own loss."""

    @model_validator(mode="after")
    def _decoder_hides_more(self) -> "SimLM":
        if self.decoder_mask_ratio < self.encoder_mask_ratio:
            raise ValueError("decoder_mask_ratio must be at least encoder_mask_ratio")
        return self

    @property
    def masking(self) -> Masking:  # noqa: D102
        return Masking(self.encoder_mask_ratio, self.decoder_mask_ratio, superset=True)

    def __call__(self, outputs: PretrainOutputs) -> ObjectiveOutput:  # noqa: D102
        restored = reconstruction(outputs)
        if outputs.generator is None:
            return restored
        head = outputs.generator
        part = head.labelled
        own = linear_cross_entropy(
            part.hidden, head.weight, part.labels, head.bias, num_labelled=len(part.labels)
        )
        own = own * part.weight
        metrics = restored.metrics | {"generator_loss": own.detach()}
        return replace(restored, loss=restored.loss + self.generator_weight * own, metrics=metrics)
