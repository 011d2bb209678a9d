"""Kernels for texts of any lengths on CUDA: flash attention under its several names, and torch's memory-efficient one.

None of them knows more than ``cu_seqlens``: no padding, no loop over texts, no wait for the device. Each is a thin
adapter; what they compute is defined in :mod:`~embedtrain.models.backbone.attention.reference`.
"""

import importlib
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32
from torch import Tensor

from embedtrain.models.backbone.attention.layout import Layout
from embedtrain.models.backbone.attention.rules import CAUSAL, Rules

HUB_KERNEL, HUB_VERSION = "kernels-community/flash-attn2", 4

Rows = Float[Tensor, "tokens heads head_dim"]
KeyRows = Float[Tensor, "tokens key_heads head_dim"]


def varlen(q: Rows, k: KeyRows, v: KeyRows, layout: Layout, rules: Rules) -> Rows:
    """Attend by ``torch.nn.attention.varlen.varlen_attn``."""
    from torch.nn.attention.varlen import varlen_attn

    head_dim = q.shape[-1]
    k, v, cu_seqlens_k, max_seqlen_k = _looked_at(k, v, layout)
    q, k, v = _whole_eights(q, k, v)
    result = varlen_attn(
        q, k, v, layout.cu_seqlens, cu_seqlens_k, layout.max_seqlen, max_seqlen_k,
        scale=rules.scale, window_size=rules.reach, enable_gqa=k.shape[1] != q.shape[1],
    )  # fmt: skip
    assert isinstance(result, Tensor)
    return result[..., :head_dim]


def torch_flash(q: Rows, k: KeyRows, v: KeyRows, layout: Layout, rules: Rules) -> Rows:
    """Attend by the operator below ``varlen_attn``, which sets its dropout to 0 (torch 2.13)."""
    k, v, cu_seqlens_k, max_seqlen_k = _looked_at(k, v, layout)
    left, right = rules.reach
    result: Tensor = torch.ops.aten._flash_attention_forward(  # noqa: SLF001 - there is no public name
        *_whole_eights(q, k, v), layout.cu_seqlens, cu_seqlens_k, layout.max_seqlen, max_seqlen_k,
        rules.dropout, (left, right) == CAUSAL, False,
        scale=rules.scale, window_size_left=left, window_size_right=right,
    )[0]  # fmt: skip
    return result[..., : q.shape[-1]]


def flash_attn_2(q: Rows, k: KeyRows, v: KeyRows, layout: Layout, rules: Rules) -> Rows:
    """Attend by the package flash-attn."""
    return _flash_attn(importlib.import_module("flash_attn"), q, k, v, layout, rules)


def kernels(q: Rows, k: KeyRows, v: KeyRows, layout: Layout, rules: Rules) -> Rows:
    """Attend by the compiled kernel that the package ``kernels`` fetches from the Hub."""
    return _flash_attn(_hub_kernel(), q, k, v, layout, rules)


@cache
def _hub_kernel() -> Any:  # noqa: ANN401 - a module
    return importlib.import_module("kernels").get_kernel(HUB_KERNEL, version=HUB_VERSION)


def _flash_attn(module: Any, q: Rows, k: KeyRows, v: KeyRows, layout: Layout, rules: Rules) -> Rows:  # noqa: ANN401
    k, v, cu_seqlens_k, max_seqlen_k = _looked_at(k, v, layout)
    result: Tensor = module.flash_attn_varlen_func(
        q, k, v, layout.cu_seqlens, cu_seqlens_k, layout.max_seqlen, max_seqlen_k,
        dropout_p=rules.dropout, softmax_scale=rules.scale, window_size=rules.reach,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    return result


def flash_attn_3(q: Rows, k: KeyRows, v: KeyRows, layout: Layout, rules: Rules) -> Rows:
    """Attend by flash-attn 3, whose first releases return the sums of exponentials as well."""
    module = importlib.import_module("flash_attn_interface")
    k, v, cu_seqlens_k, max_seqlen_k = _looked_at(k, v, layout)
    result = module.flash_attn_varlen_func(
        *_whole_eights(q, k, v), layout.cu_seqlens, cu_seqlens_k, layout.max_seqlen, max_seqlen_k,
        softmax_scale=rules.scale, window_size=rules.reach,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    output: Tensor = result[0] if isinstance(result, tuple) else result
    return output[..., : q.shape[-1]]


def efficient(q: Rows, k: KeyRows, v: KeyRows, layout: Layout, rules: Rules) -> Rows:
    """Attend by the operator that torch's nested tensors use: float32 and old GPUs too, no windows.

    Its causal mask aligns the first query with the first key, so tokens may be left out under it as well.
    """
    k, v, cu_seqlens_k, max_seqlen_k = _looked_at(k, v, layout)
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    needs_sums = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    result: Tensor = torch.ops.aten._efficient_attention_forward(  # noqa: SLF001 - there is no public name
        q[None], k[None], v[None], None,
        layout.cu_seqlens, cu_seqlens_k, layout.max_seqlen, max_seqlen_k,
        rules.dropout, int(rules.reach == CAUSAL), needs_sums, scale=rules.scale,
    )[0]  # fmt: skip
    return result[0]


def _looked_at(
    k: KeyRows, v: KeyRows, layout: Layout
) -> tuple[Tensor, Tensor, Int32[Tensor, " texts_and_one"], int]:
    """Return keys and values of the tokens that are looked at, where each text's begin, and the most of a text."""
    keys = layout.keys
    if keys is None:
        return k, v, layout.cu_seqlens, layout.max_seqlen
    k, v = k.index_select(0, keys.places), v.index_select(0, keys.places)
    return k, v, keys.cu_seqlens, keys.max_seqlen


def _whole_eights(*rows: Tensor) -> tuple[Tensor, ...]:
    """Fill heads up with zeros to a multiple of 8 dimensions, which torch's flash attention asks for."""
    spare = -rows[0].shape[-1] % 8
    return tuple(F.pad(x, (0, spare)) if spare else x for x in rows)
