"""MEXMA: hidden words of a text are rebuilt with the vector of its translation, and both vectors agree."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from embedtrain.objectives.pretrain.base import PretrainObjective, token_loss
from embedtrain.ops.koleo import koleo
from embedtrain.pretrain_types import Computation, Masking, PretrainOutputs
from embedtrain.types import ObjectiveOutput


class MEXMA(PretrainObjective):
    r"""Rebuild each text of a pair from its masked self and the other's vector, align the vectors, spread them.

    $$\mathcal{L} = \alpha \frac{CE_A + CE_B}{2} + \beta \frac{1}{BD} \sum_i \lVert c^A_i - c^B_i \rVert^2
    + \gamma \frac{K(C^A) + K(C^B)}{2}$$

    $c$ are vectors of the untouched texts, not normalised. For $CE_A$ the decoder (``model.decoder``, 6 layers in the
    paper) gets the last states of the masked A with $c^B$ in the place of the first, so hidden words of A train the
    encoder of B; there is no stop-gradient. $CE$ is the mean over the hidden tokens of one language. $K$ is KoLeo
    (:func:`embedtrain.ops.koleo.koleo`) of one language, over all ranks, where the authors' code takes one device's. The
    output matrix is that of the backbone, with its bias and without the layers that its head has before it.

    Source: Janeiro et al. (2024), https://arxiv.org/abs/2409.12737, and the authors' code.
    """

    name: Literal["mexma"] = "mexma"
    computation: ClassVar[Computation] = Computation(decoder="plain", clean_pass=True)
    mask_ratio: float = Field(default=0.4, gt=0, lt=1)
    """Share of the ordinary tokens that are hidden, in both languages."""
    token_weight: NonNegativeFloat = 1.0
    r"""$\alpha$."""
    align_weight: NonNegativeFloat = 1.0
    r"""$\beta$."""
    koleo_weight: NonNegativeFloat = 0.01
    r"""$\gamma$."""

    @property
    def masking(self) -> Masking:  # noqa: D102
        return Masking(self.mask_ratio, pairs=True, parallel=True)

    @property
    def needs_all_vectors(self) -> bool:
        """The nearest vector may be another rank's."""
        return self.koleo_weight > 0

    @property
    def smallest_batch(self) -> int:
        """Two pairs: a lonely vector has no neighbour."""
        return 4 if self.koleo_weight > 0 else 2

    def __call__(self, outputs: PretrainOutputs) -> ObjectiveOutput:  # noqa: D102
        assert outputs.decoder is not None
        assert outputs.translated is not None
        words = (token_loss(outputs, outputs.decoder) + token_loss(outputs, outputs.translated)) / 2
        vectors = _wide(outputs.vectors)
        apart = F.mse_loss(vectors[0::2], vectors[1::2])
        crowded = self._crowded(outputs, vectors)
        of_texts = self.align_weight * apart + self.koleo_weight * crowded
        metrics = {"decoder_loss": words, "align_loss": apart, "koleo_loss": crowded}
        loss = self.token_weight * words + outputs.text_weight * of_texts
        return ObjectiveOutput(loss, {name: value.detach() for name, value in metrics.items()})

    def _crowded(
        self, outputs: PretrainOutputs, vectors: Float[Tensor, "texts width"]
    ) -> Float[Tensor, ""]:
        """Return KoLeo of both languages; 0 where it has no weight."""
        if self.koleo_weight == 0:
            return vectors.new_zeros(())
        everyone = vectors if outputs.all_vectors is None else _wide(outputs.all_vectors)
        sides = [koleo(vectors[side::2], everyone[side::2]) for side in (0, 1)]
        return torch.stack(sides).mean()


def _wide(vectors: Float[Tensor, "texts width"]) -> Float[Tensor, "texts width"]:
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))
