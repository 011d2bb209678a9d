"""DupMAE (RetroMAE v2): RetroMAE, and ordinary tokens that must name the words of the text."""

from dataclasses import replace
from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from embedtrain.objectives.pretrain.base import PretrainObjective, reconstruction
from embedtrain.ops.vocabulary_max import vocabulary_max
from embedtrain.packed import upload
from embedtrain.pretrain_types import Computation, Masking, PretrainOutputs
from embedtrain.section import Count
from embedtrain.types import ObjectiveOutput


class DupMAE(PretrainObjective):
    r"""Rebuild a text from its vector, and name its words from its other tokens.

    $$\mathcal{L} = \mathcal{L}_{RetroMAE} - \lambda \frac{1}{B} \sum_b \frac{1}{n_b} \sum_{v \in b}
    \log \mathrm{softmax}(\mu_b)_v, \quad \mu_{bv} = \max_{t > 0} z_{btv}$$

    $z$ are the masked-language logits of the masked input at all tokens but the first; a word counts once,
    however often it occurs, and $n_b$ counts tokens. The head becomes part of the model.

    Source: Xiao et al. (2023), https://arxiv.org/abs/2305.02564; $\lambda$ stands in the authors' code only.
    """

    name: Literal["dupmae"] = "dupmae"
    keeps_head: ClassVar[bool] = True
    encoder_mask_ratio: float = Field(default=0.3, gt=0, lt=1)
    """Share of the ordinary tokens hidden from the encoder."""
    decoder_mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    """Share of the ordinary tokens hidden from each token of the decoder."""
    num_draws: Count | None = None
    """Distinct decoder masks per text; null draws each token its own."""
    query_norm: bool = True
    """Let the decoder's queries pass through the norm of the embeddings, as the authors' code does."""
    bag_of_words_weight: NonNegativeFloat = 0.1
    r"""$\lambda$; the paper adds the terms without a weight."""

    @property
    def masking(self) -> Masking:  # noqa: D102
        ratios = self.encoder_mask_ratio, self.decoder_mask_ratio
        return Masking(*ratios, by_position=True, num_draws=self.num_draws)

    @property
    def computation(self) -> Computation:  # noqa: D102
        return Computation(
            decoder="enhanced",
            decode_all_tokens=True,
            query_norm=self.query_norm,
            bag_of_words=True,
        )

    def __call__(self, outputs: PretrainOutputs) -> ObjectiveOutput:  # noqa: D102
        rebuilt = reconstruction(outputs)
        bag, found_ratio = bag_of_words(outputs)
        metrics = rebuilt.metrics | {"bag_of_words_loss": bag.detach(), "words_found": found_ratio}
        return replace(rebuilt, loss=rebuilt.loss + self.bag_of_words_weight * bag, metrics=metrics)


def bag_of_words(outputs: PretrainOutputs) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the loss of naming each text's words, and the share of them among its largest entries."""
    words = outputs.words
    assert words is not None
    pooled = vocabulary_max(words.hidden, words.lengths, outputs.weight, outputs.bias)
    log_total = pooled.logsumexp(1)
    named = pooled[words.bag_texts, words.bag_ids]
    weights = 1 / words.num_tokens.clamp_min(1)[words.bag_texts]
    losses = (log_total[words.bag_texts] - named) * weights
    largest = pooled.detach().topk(max(1, int(words.num_words.max())), dim=1).values
    last = upload((words.num_words - 1).clamp_min(0), pooled.device)
    threshold = largest.gather(1, last[:, None])[:, 0]
    found = (named.detach() >= threshold[words.bag_texts]).sum()
    return words.weight * losses.sum() / len(pooled), found / max(1, len(named))
