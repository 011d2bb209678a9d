"""The last layer for first tokens alone, where nothing reads the others: a classifier's head reads the first of a text.

Keys and values of all tokens are computed, and all else of the layer for one token of each text: of six layers that
spares a seventh of the products. The layer itself is left as it is; a hook hands it fewer states, and what it would
look up in a cache.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.models.exits import layer_stacks

LAYERS = ("BertLayer", "CamembertLayer", "ElectraLayer", "RobertaLayer", "XLMRobertaLayer")
"""Layers of transformers that take their keys and values from a cache and know no places."""
AllTokens = Float[Tensor, "1 heads tokens head_dim"]


@dataclass(frozen=True)
class _Computed:
    """Keys and values of all tokens, in the place of a cache."""

    keys: AllTokens
    values: AllTokens

    def update(self, _keys: Tensor, _values: Tensor, _layer: int) -> tuple[AllTokens, AllTokens]:
        """Return them; those of the first tokens are among them."""
        return self.keys, self.values


def let_first_alone(backbone: Any) -> bool:  # noqa: ANN401 - transformers is untyped
    """Let the layer that a layout names end with first tokens; return whether the layers can."""
    layers = [layer for owner, name in layer_stacks(backbone) for layer in getattr(owner, name)]
    if not all(type(layer).__name__ in LAYERS and not layer.is_decoder for layer in layers):
        return False
    for layer in layers:  # any may be the last after an edit
        layer.register_forward_pre_hook(_keep_first, with_kwargs=True)
    return bool(layers)


def last_layer(backbone: Any) -> nn.Module:  # noqa: ANN401 - transformers is untyped
    """Return the layer behind which there is none."""
    owner, name = layer_stacks(backbone)[-1]
    layer: nn.Module = getattr(owner, name)[-1]
    return layer


def _keep_first(
    layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    layout = named.get("layout")
    if layout is None or layout.first_of is not layer:
        return None
    states, own = inputs[0], layer.attention.self
    keys, values = (
        made(states).unflatten(-1, (-1, own.attention_head_size)).transpose(1, 2)
        for made in (own.key, own.value)
    )
    first = states[:, layout.cu_seqlens[:-1].long()]
    return (first, *inputs[1:]), named | {"past_key_values": _Computed(keys, values)}
