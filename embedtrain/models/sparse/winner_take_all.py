"""UHD's head: a very wide layer, of whose outputs each token keeps the few largest."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.sparse_contract import Winners
from embedtrain.models.saved_part import SavedPart
from embedtrain.ops.similarity import text_of_token
from embedtrain.packed import Texts

ELEMENTS = 2**24
"""Outputs of the wide layer that are computed at once."""


class WinnerTakeAll(SavedPart):
    r"""Entries of a text: the maxima over its tokens of what wins in each, for one or more layers.

    $$b^l_v = \max_t [v \in \mathrm{top}_k(W_l h^l_t)]\; \mathrm{ReLU}((W_l h^l_t)_v)$$

    The buckets $b^l$ of the layers are merged, $b_v = \max_l b^l_v$, or concatenated. A text has at most k entries for each token and layer. With ``binary`` they are 1 or 0, trained straight through: the
    gradient is that of $\tanh(b_v)$. Only winners get a gradient; what loses is computed in tiles and forgotten.

    Source: Jang et al. (2021), UHD-BERT, https://arxiv.org/abs/2104.07198.
    """

    weights_file = "winner_take_all.safetensors"

    def __init__(self, width: int, config: Winners) -> None:
        super().__init__()
        self.config = config
        layers = len(config.layers) + 1
        self.wide = nn.ModuleList(
            nn.Linear(width, config.entries, bias=False) for _ in range(layers)
        )

    @property
    def dim(self) -> int:
        """Number of entries."""
        return self.config.dim

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose states it reads besides the last's."""
        return self.config.layers

    def forward(
        self, states: Float[Tensor, "tokens widths"], texts: Texts
    ) -> Float[Tensor, "texts entries"]:
        """Return the entries of each text, from the states of the layers side by side."""
        rows = text_of_token(texts.lengths, len(texts.ids))
        found = states.new_zeros(
            len(texts) * self.dim, dtype=torch.promote_types(states.dtype, torch.float32)
        )
        parts = states.chunk(len(self.wide), dim=1)
        apart = self.config.entries if self.config.buckets == "concatenated" else 0
        for bucket, (part, layer) in enumerate(zip(parts, self.wide, strict=True)):
            assert isinstance(layer, nn.Linear)
            values, winners = self._winners(part, layer.weight)
            places = (rows[:, None] * self.dim + bucket * apart + winners).flatten()
            found = found.scatter_reduce(0, places, values.flatten(), "amax")
        weights = found.view(len(texts), self.dim)
        return _binary(weights) if self.config.binary else weights

    def _winners(
        self, states: Float[Tensor, "tokens width"], weight: Float[Tensor, "entries width"]
    ) -> tuple[Float[Tensor, "tokens k"], Int64[Tensor, "tokens k"]]:
        """Return the largest outputs of each token, none below 0, and which they are."""
        wide = torch.promote_types(states.dtype, torch.float32)
        states, weight = states.to(wide), weight.to(wide)
        with torch.autocast(states.device.type, enabled=False):
            with torch.no_grad():
                winners = torch.cat([
                    (tile @ weight.T).topk(self.config.winners, dim=1).indices
                    for tile in torch.split(states, max(1, ELEMENTS // len(weight)))
                ])  # fmt: skip
            values = torch.einsum("td,tkd->tk", states, F.embedding(winners, weight))
        return values.relu(), winners


def _binary(weights: Float[Tensor, "texts entries"]) -> Float[Tensor, "texts entries"]:
    """Return 1 for each entry above 0, with the gradient of the hyperbolic tangent."""
    smooth = weights.tanh()
    return (weights > 0).to(weights.dtype) + (smooth - smooth.detach())
