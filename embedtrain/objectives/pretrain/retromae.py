"""RetroMAE: a lightly masked encoder, and a weak decoder that sees little but the encoder's vector."""

from typing import Literal

from pydantic import Field

from embedtrain.objectives.pretrain.base import PretrainObjective, reconstruction
from embedtrain.pretrain_types import Computation, Masking, PretrainOutputs
from embedtrain.section import Count
from embedtrain.types import ObjectiveOutput


class RetroMAE(PretrainObjective):
    r"""Rebuild every token of a text from its vector and a few of its tokens.

    $$\mathcal{L} = \mathcal{L}_{MLM} - \frac{1}{n} \sum_t \log p(x_t \mid h, \{x_j : j \in s_t\})$$

    The decoder is one layer whose queries are the vector $h$ plus a position, and whose context holds $h$
    and the true tokens; token $t$ sees its own random share $s_t$ of them, never itself. All ordinary tokens
    are rebuilt, by the encoder's own masked-language head.

    Source: Xiao et al. (2022), https://arxiv.org/abs/2205.12035.
    """

    name: Literal["retromae"] = "retromae"
    encoder_mask_ratio: float = Field(default=0.3, gt=0, lt=1)
    """Share of the ordinary tokens hidden from the encoder."""
    decoder_mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    """Share of the ordinary tokens hidden from each token of the decoder."""
    num_draws: Count | None = None
    """Distinct decoder masks per text among which its tokens choose (the authors' code: 256, each hiding
    the same number of tokens); null draws each token its own, in which every word is hidden or not alone."""
    query_norm: bool = False
    """Let the decoder's queries pass through the norm of the embeddings, as DupMAE's code does."""

    @property
    def masking(self) -> Masking:  # noqa: D102
        ratios = self.encoder_mask_ratio, self.decoder_mask_ratio
        return Masking(*ratios, by_position=True, num_draws=self.num_draws)

    @property
    def computation(self) -> Computation:  # noqa: D102
        return Computation(decoder="enhanced", decode_all_tokens=True, query_norm=self.query_norm)

    def __call__(self, outputs: PretrainOutputs) -> ObjectiveOutput:  # noqa: D102
        return reconstruction(outputs)
