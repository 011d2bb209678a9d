"""Attention over texts laid end to end, so that next to no padding is computed.

Token-wise layers see one long row of tokens. Attention plugs into transformers through its public attention
interface, so no model is patched; :mod:`embedtrain.models.backbone.attention` computes it.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface

from embedtrain.models.backbone.attention.attend import attend
from embedtrain.models.backbone.attention.layout import Layout
from embedtrain.models.backbone.attention.rules import layer_window
from embedtrain.models.backbone.families import INCLUSIVE

NAME = "embedtrain_packed"


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads queries head_dim"],
    key: Float[Tensor, "1 key_heads tokens head_dim"],
    value: Float[Tensor, "1 key_heads tokens head_dim"],
    _attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    s_aux: Tensor | None = None,
    **_: Any,  # noqa: ANN401 - transformers passes what other backends need
) -> tuple[Float[Tensor, "1 queries heads head_dim"], None]:
    """Attend within each text; the signature is that of transformers' attention functions.

    Raises:
        ValueError: If the layer adds a bias to its scores or has sinks, or nothing here can compute it.
    """
    if position_bias is not None or s_aux is not None:
        raise ValueError("this attention adds a bias of its own to the scores")
    told = is_causal is not None  # a decoder that was told otherwise says so with each call
    causal = bool(is_causal if told else getattr(module, "is_causal", False))
    config = getattr(module, "config", None)
    mask_window = getattr(config, "sliding_window", None)
    both_ways = told or getattr(config, "model_type", None) == INCLUSIVE
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    result = attend(
        q,
        k,
        v,
        layout.cu_seqlens,
        layout.max_seqlen,
        layer_window(sliding_window, causal=causal, told=both_ways, mask_window=mask_window),
        causal,
        scale=scaling,
        dropout=dropout,
        softcap=softcap or 0.0,
        layout=layout,
    )
    return result[None].to(value.dtype), None


AttentionInterface.register(NAME, packed_attention)
