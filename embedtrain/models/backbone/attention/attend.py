"""Attention within each of several texts that lie end to end, on whatever device they are."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from embedtrain.models.backbone.attention import flash
from embedtrain.models.backbone.attention.choice import PADDED, Call, capability, chosen
from embedtrain.models.backbone.attention.flex import flex
from embedtrain.models.backbone.attention.grouped import grouped_attention
from embedtrain.models.backbone.attention.layout import Layout
from embedtrain.models.backbone.attention.rules import UNLIMITED, WHOLE, Rules, Window

BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Layout, Rules], Tensor]] = {
    "grouped": grouped_attention,
    "varlen": flash.varlen,
    "torch_flash": flash.torch_flash,
    "flash_attn_2": flash.flash_attn_2,
    "flash_attn_3": flash.flash_attn_3,
    "kernels": flash.kernels,
    "efficient": flash.efficient,
    "flex": flex,
}


def attend(
    q: Float[Tensor, "queries heads head_dim"],
    k: Float[Tensor, "tokens key_heads head_dim"],
    v: Float[Tensor, "tokens key_heads head_dim"],
    cu_seqlens: Int32[Tensor, " texts_and_one"],
    max_seqlen: int,
    window: Window = WHOLE,
    causal: bool = False,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    softcap: float = 0.0,
    layout: Layout | None = None,
    backend: str | None = None,
) -> Float[Tensor, "queries heads head_dim"]:
    """Attend within each text, without padding.

    Where several key heads are fewer than heads, heads share them in order. Places count from a text's first
    token. Under autocast of a GPU, queries, keys and values come together in its type.

    Args:
        q: Queries of all tokens; on a CPU also those of each text's first alone.
        k: Keys.
        v: Values.
        cu_seqlens: Where each text begins and the last ends, on the device.
        max_seqlen: Tokens of the longest text, known to the host.
        window: Keys before and after its own place that a token sees; -1 for all.
        causal: Whether a token sees none after itself, whatever the window says.
        scale: Factor of the scores; None for one over the root of ``head_dim``.
        dropout: Share of the attention weights that is dropped.
        softcap: Bound of the scores; 0 for none.
        layout: What else is known of ``cu_seqlens``, so that the host need not ask the device: the lengths, and
            which tokens are looked at.
        backend: Who computes it; None for the choice of
            :func:`~embedtrain.models.backbone.attention.choice.choose`.

    Raises:
        ValueError: If no backend of this machine can, with what is in the way.
    """
    if layout is None:
        layout = Layout(cu_seqlens.diff().tolist(), cu_seqlens)
    assert (layout.cu_seqlens is cu_seqlens, layout.max_seqlen) == (True, max_seqlen)
    q, k, v = _of_one_type(q, k, v)
    rules = Rules(q.shape[-1] ** -0.5 if scale is None else scale, window, causal, dropout, softcap)
    if backend is None:
        choice = chosen(call_of(q, layout, rules))
        if choice.backend == PADDED:
            raise ValueError(choice.reason)
        backend = choice.backend
    return BACKENDS[backend](q, k, v, layout, rules)


def call_of(q: Float[Tensor, "queries heads head_dim"], layout: Layout, rules: Rules) -> Call:
    """Return what decides who computes a call."""
    device = q.device
    if device.type != "cuda":
        return Call(device.type, q.dtype, q.shape[-1])
    left, right = rules.reach
    return Call(
        device.type,
        q.dtype,
        q.shape[-1],
        capability(device.index or 0),
        windowed=left != UNLIMITED or right > 0,
        causal=right == 0,
        dropout=rules.dropout > 0 or layout.drops,
        softcap=bool(rules.softcap),
        shortened=layout.keys is not None,
        gradients=layout.in_training or (torch.is_grad_enabled() and q.requires_grad),
    )


def _of_one_type(*rows: Tensor) -> tuple[Tensor, ...]:
    """Norms of queries and keys give float32 under autocast, where values stay bf16; kernels want one type."""
    device = rows[0].device.type
    if device != "cpu" and torch.is_autocast_enabled(device):
        return tuple(x.to(torch.get_autocast_dtype(device)) for x in rows)
    widest = max((x.dtype for x in rows), key=lambda dtype: torch.finfo(dtype).bits)
    return tuple(x.to(widest) for x in rows)
