"""Kernels on a shadow device: Triton's run in its interpreter, others by the definition of what they compute."""

import os
from importlib.util import find_spec
from typing import Any
from unittest import mock

from torch.utils._pytree import tree_map

from embedtrain.models.backbone.attention import choice
from embedtrain.models.backbone.attention.reference import flash_attn_varlen_func

HERE = choice.Installed(varlen=True, torch_flash=True)
"""What a torch that is built for CUDA has."""


LAUNCH = "triton.runtime.interpreter.GridExecutor.__call__"


def triton(shadow: Any):
    """Return what launches a Triton kernel, which the tests have let Triton interpret, on tensors of the shadow."""
    from triton.runtime.interpreter import GridExecutor

    launch = GridExecutor.__call__

    def run(executor, *args, **kwargs):
        shadow.now.launches[executor.fn.__name__] += 1
        with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
            launch(executor, *tree_map(inner, args), **tree_map(inner, kwargs))

    return run


def inner(value: Any) -> Any:
    return getattr(value, "_inner", value)


def stand_ins(shadow: Any) -> dict[str, object]:
    """Return what stands for the kernels, and for the look at what is installed."""

    def varlen(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa
    ):
        def attend(q, k, v):
            places = cu_seq_q._inner, cu_seq_k._inner, max_q, max_k
            return flash_attn_varlen_func(q, k, v, *places, 0.0, scale, window_size=window_size)

        shadow.now.attention["varlen"] += 1
        return shadow.operation("varlen_attn", attend)(query, key, value)

    def efficient(
        query, key, value, bias, cu_seqlens_q, cu_seqlens_k, max_q, max_k, dropout_p, mask_type,
        compute_log_sumexp=False, *, scale=None,
    ):  # fmt: skip
        def attend(q, k, v):
            places = cu_seqlens_q._inner, cu_seqlens_k._inner, max_q, max_k
            causal = mask_type == 1
            return flash_attn_varlen_func(q[0], k[0], v[0], *places, 0.0, scale, causal)[None]

        shadow.now.attention["efficient"] += 1
        return shadow.operation("_efficient_attention", attend)(query, key, value), None

    found = {} if find_spec("triton") is None else {LAUNCH: triton(shadow)}
    attend = "embedtrain.models.backbone.attention.attend"
    return found | {
        "torch.nn.attention.varlen.varlen_attn": varlen,
        "torch.ops.aten._efficient_attention_forward": efficient,
        f"{attend}.chosen": lambda call: choice.choose(call, HERE),
        f"{attend}.capability": lambda _: (9, 0),
    }
