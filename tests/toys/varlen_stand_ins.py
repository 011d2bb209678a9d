"""The kernels of a GPU, played on the CPU by the definition of what they compute; the adapters do not notice."""

import inspect
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from embedtrain.models.backbone.attention import attend as attend_module
from embedtrain.models.backbone.attention.choice import Choice
from embedtrain.models.backbone.attention.reference import flash_attn_varlen_func
from embedtrain.models.backbone.attention.rules import Rules, band


def varlen_attn(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *,
    return_aux=None, scale=None, window_size=(-1, -1), enable_gqa=False,
    seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    """What torch.nn.attention.varlen.varlen_attn is; it refuses what that refuses."""
    assert enable_gqa or key.shape[1] == query.shape[1]
    assert query.shape[-1] % 8 == 0
    assert (return_aux, seqused_k, block_table, num_splits) == (None, None, None, None)
    return flash_attn_varlen_func(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, 0.0, scale, window_size=window_size
    )


def flash_operator(
    query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, return_debug_mask,
    *, scale=None, window_size_left=None, window_size_right=None,
):  # fmt: skip
    """What torch.ops.aten._flash_attention_forward is."""
    assert query.shape[-1] % 8 == 0
    assert is_causal == ((window_size_left, window_size_right) == (-1, 0))
    window = window_size_left, window_size_right
    result = flash_attn_varlen_func(
        query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, scale, is_causal, window
    )
    return result, None, None, None, None


def efficient_operator(
    query, key, value, bias, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p,
    custom_mask_type, compute_log_sumexp=False, *, scale=None,
):  # fmt: skip
    """What torch.ops.aten._efficient_attention_forward is: the first query beside the first key, no grouped heads."""
    assert bias is None
    assert key.shape == value.shape
    assert query.shape[2] == key.shape[2]
    assert compute_log_sumexp == (torch.is_grad_enabled() and query.requires_grad)
    q_sizes, k_sizes = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    assert (max(q_sizes), max(k_sizes)) == (max_seqlen_q, max_seqlen_k)
    rows = []
    parts = query[0].split(q_sizes), key[0].split(k_sizes), value[0].split(k_sizes)
    for q, k, v in zip(*parts, strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        if custom_mask_type == 1:
            seen = band(torch.arange(len(q)), torch.arange(len(k)), Rules(1.0, causal=True).reach)
            scores = scores.masked_fill(~seen, float("-inf"))
        weights = torch.nn.functional.dropout(scores.softmax(-1), dropout_p)
        rows.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(rows)[None], None, None, None, max_seqlen_q, max_seqlen_k


def flash_3(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *,
    softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, deterministic=False,
):  # fmt: skip
    """What flash_attn_interface.flash_attn_varlen_func of flash-attn 3 was at first: it has no dropout and gives two."""
    assert q.shape[-1] % 8 == 0
    result = flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, 0.0, softmax_scale,
        causal, window_size, softcap,
    )  # fmt: skip
    return result, None


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins where the kernels would be."""
    two = SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func)
    three = SimpleNamespace(flash_attn_varlen_func=flash_3)
    monkeypatch.setitem(sys.modules, "flash_attn", two)
    monkeypatch.setitem(sys.modules, "flash_attn_interface", three)
    monkeypatch.setitem(
        sys.modules, "kernels", SimpleNamespace(get_kernel=lambda name, version: two)
    )
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", flash_operator, raising=False)
    monkeypatch.setattr(
        torch.ops.aten, "_efficient_attention_forward", efficient_operator, raising=False
    )


@contextmanager
def forced(backend: str):
    """Let every layer attend by one backend, played by its stand-in; yields how often it was asked."""
    asked = []

    def choose(call):
        asked.append(call)
        return Choice(backend, "forced")

    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        patch.setattr(attend_module, "chosen", choose)
        yield asked


def parameters_of(function) -> list[str]:
    """Names and kinds of a function's parameters, to compare a stand-in with what it plays."""
    return [f"{one.kind} {one.name}" for one in inspect.signature(function).parameters.values()]
