r"""Pooling over layers: learned latents look at one vector of each layer and become the embedding.

With $X \in R^{L \times D}$ the pooled states of a text after each of the L layers, P a learned embedding of
the layers and $Z \in R^{K \times D}$ learned latents,

$$Y = Z + \mathrm{attention}(\mathrm{LN}(Z),\ \mathrm{LN}(X + P)), \quad
Y' = Y + \mathrm{GEGLU}(\mathrm{LN}(Y)), \quad e = \frac{1}{K} \sum_k Y'_k$$

so the latents are the queries and the layers keys and values.

Source: Tang and Yang (2024), https://arxiv.org/abs/2409.02727 (multi-layer trainable pooling). There K is 768
and attention is 16 times as wide as the backbone, more than many backbones have weights; here both are small
by default.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.models.pooling import widen
from embedtrain.models.saved_part import SavedPart
from embedtrain.section import Count, Section


class LayerPoolingConfig(Section):
    """Pool every layer, and attend over layers."""

    num_latents: Count = 32
    num_heads: Count = 8
    head_dim: Count = 64


class LayerPooling(SavedPart):
    """Latents that attend to the layers' vectors."""

    weights_file = "layer_pooling.safetensors"

    def __init__(self, width: int, num_layers: int, config: LayerPoolingConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.latents = nn.Parameter(torch.randn(config.num_latents, width))
        self.layers = nn.Parameter(0.02 * torch.randn(num_layers, width))
        self.latent_norm = nn.LayerNorm(width)
        self.layer_norm = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, inner, bias=False)
        self.to_key = nn.Linear(width, inner, bias=False)
        self.to_value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 8 * width)
        self.feed_out = nn.Linear(4 * width, width)

    def forward(self, pooled: Float[Tensor, "texts layers width"]) -> Float[Tensor, "texts width"]:
        """Return one vector per text, in float32 at least; it is not normalised."""
        keys = self.layer_norm(pooled + self.layers)
        query = self._by_head(self.to_query(self.latent_norm(self.latents))[None])
        query = query.expand(len(pooled), -1, -1, -1)
        found = F.scaled_dot_product_attention(
            query, self._by_head(self.to_key(keys)), self._by_head(self.to_value(keys))
        )
        latents = self.latents + self.output(found.transpose(1, 2).flatten(2))
        value, gate = self.feed_in(self.feed_norm(latents)).chunk(2, dim=-1)
        latents = latents + self.feed_out(value * F.gelu(gate))
        return widen(latents.mean(dim=1))

    def _by_head(self, rows: Tensor) -> Tensor:
        heads = rows.reshape(*rows.shape[:-1], self.config.num_heads, self.config.head_dim)
        return heads.transpose(1, 2)
