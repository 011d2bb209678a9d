r"""Pooling over layers: learned latents look at one vector of each layer and become the embedding.

With $X \in R^{L \times D}$ the pooled states of a text after each of the L layers, P a learned embedding of
the layers and $Z \in R^{K \times D}$ learned latents,

$$Y = Z + \mathrm{attention}(\mathrm{LN}(Z),\ \mathrm{LN}(X + P)), \quad
Y' = Y + \mathrm{GEGLU}(\mathrm{LN}(Y)), \quad e = \frac{1}{K} \sum_k Y'_k$$

so the latents are the queries and the layers keys and values.

Source: Tang and Yang (2024), https://arxiv.org/abs/2409.02727 (multi-layer trainable pooling). There K is 768
and attention is 16 times as wide as the backbone, more than many backbones have weights; here both are small
by default. Or the vectors of the last layers stand side by side, with nothing learned: Barkan et al. (2020),
https://arxiv.org/abs/1908.05161 (DSE).
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.models.pooling import widen
from embedtrain.models.saved_part import SavedPart
from embedtrain.section import Count, Section


class LayerPoolingConfig(Section):
    """Pool every layer, and attend over layers, or put the last ones side by side."""

    last: Count | None = None
    """Put the vectors of so many last layers side by side, which makes the vector as many times as wide; null: attend."""
    num_latents: Count = 32
    num_heads: Count = 8
    head_dim: Count = 64

    def width_of(self, width: int) -> int:
        """Return how many numbers it makes of states of so many."""
        return width * (self.last or 1)


class PooledLayers(SavedPart, ABC):
    """Makes one vector of those of some layers."""

    weights_file = "layer_pooling.safetensors"

    def __init__(self, num_layers: int, config: LayerPoolingConfig) -> None:
        super().__init__()
        self.config = config
        first = 1 if config.last is None else num_layers - config.last + 1
        self.layers_before = tuple(range(first, num_layers))
        """The layers that are pooled, counted from 1, but for the last."""

    @abstractmethod
    def forward(self, pooled: Float[Tensor, "texts layers width"]) -> Float[Tensor, "texts dim"]:
        """Return one vector per text, in float32 at least; it is not normalised."""


def build_layer_pooling(width: int, num_layers: int, config: LayerPoolingConfig) -> PooledLayers:
    """Return what a config asks for, of a backbone of so many layers.

    Raises:
        UserError: If it asks for more layers than there are.
    """
    if config.last is None:
        return LayerPooling(width, num_layers, config)
    if config.last > num_layers:
        problem = f"asks for more layers than the backbone has ({num_layers})"
        raise UserError("model.layer_pooling.last", problem, got=config.last, cure="Lower it")
    return LastLayers(num_layers, config)


class LastLayers(PooledLayers):
    """The vectors of the last layers side by side."""

    def forward(self, pooled: Float[Tensor, "texts layers width"]) -> Float[Tensor, "texts dim"]:
        """Return one vector per text, in float32 at least; it is not normalised."""
        return widen(pooled.flatten(1))


class LayerPooling(PooledLayers):
    """Latents that attend to the layers' vectors."""

    def __init__(self, width: int, num_layers: int, config: LayerPoolingConfig) -> None:
        super().__init__(num_layers, config)
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
