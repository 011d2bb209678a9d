"""The vocabulary part of DupMAE's unified embedding: which words a text speaks of, beside its vector."""

import math
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.models.backbone.language_head import MaskedLanguageModel
from embedtrain.models.pooling import positions
from embedtrain.models.saved_part import SavedPart
from embedtrain.ops.vocabulary_max import vocabulary_max
from embedtrain.section import Count, Section


class WordsConfig(Section):
    """Coordinates for words, from the masked-language head; needs a backbone that kept it (DupMAE, MLM)."""

    kept: Count = 384
    """Vocabulary entries kept of a text, the largest; the others are 0."""
    activation: Literal["relu", "log1p_relu"] = "log1p_relu"
    """What becomes of a kept logit; negative ones are 0, for two texts that both lack a word are not alike."""
    dim: Count | None = 384
    """Dimensions the entries are projected to, which keeps inner products in expectation; null keeps one
    dimension for each vocabulary entry: exact, but a vector of tens of thousands of numbers."""
    learned: bool = False
    """Train the projection; else it stays the random one."""


class WordPart(SavedPart):
    r"""Max-pooled vocabulary logits of all tokens but the first, the largest of them, projected.

    $$w = P\, a(\mathrm{top}_k(\mu)), \quad \mu_v = \max_{t > 0} z_{tv}$$

    The inner product of two texts is that of their vectors plus, without a projection, the sum over the
    words that both kept.

    Source: Xiao et al. (2023), https://arxiv.org/abs/2305.02564, which stores top-k ids and values; the
    projection is ours. ``language`` shares the encoder's weights.
    """

    weights_file = "words.safetensors"
    shared = ("language.",)

    def __init__(self, language: MaskedLanguageModel, config: WordsConfig) -> None:
        super().__init__()
        self.language = language
        self.config = config
        self.projection: nn.Parameter | None = None
        if config.dim is not None:
            generator = torch.Generator().manual_seed(0)
            shape = config.dim, len(language.weight)
            matrix = torch.empty(shape).normal_(generator=generator) / math.sqrt(config.dim)
            self.projection = nn.Parameter(matrix, requires_grad=config.learned)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.config.dim or len(self.language.weight)

    def forward(
        self, states: Float[Tensor, "tokens width"], lengths: Int64[Tensor, " texts"]
    ) -> Float[Tensor, "texts dim"]:
        """Return the coordinates of each text, from the states of its tokens laid end to end."""
        hidden = self.language.transform(states[positions(lengths, len(states)) > 0])
        pooled = vocabulary_max(hidden, lengths - 1, self.language.weight, self.language.bias)
        kept = pooled.topk(min(self.config.kept, pooled.shape[1]), dim=1)
        values = kept.values.relu()
        values = values.log1p() if self.config.activation == "log1p_relu" else values
        entries = torch.zeros_like(pooled).scatter(1, kept.indices, values)
        if self.projection is None:
            return entries
        with torch.autocast(entries.device.type, enabled=False):
            return entries @ self.projection.T.to(entries.dtype)

    def save(self, folder: Path) -> None:
        """Write the encoder with its head, and the projection where there is one."""
        self.language.model.save_pretrained(folder)
        if self.projection is not None:
            super().save(folder)

    def load(self, folder: Path) -> "WordPart":
        """Read the projection back, where there is one."""
        return self if self.projection is None else super().load(folder)

    def refuse_other(self, folder: Path) -> None:
        """Compare the size of the projection, where there is one."""
        if self.projection is not None:
            super().refuse_other(folder)
