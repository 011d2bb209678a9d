"""Kernels for texts of any lengths on a shadow device: one launch each way, computed by their definition."""

from typing import Any

from embedtrain.models.backbone.attention import choice
from embedtrain.models.backbone.attention.reference import flash_attn_varlen_func

HERE = choice.Installed(varlen=True, torch_flash=True)
"""What a torch that is built for CUDA has."""


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

    attend = "embedtrain.models.backbone.attention.attend"
    return {
        "torch.nn.attention.varlen.varlen_attn": varlen,
        "torch.ops.aten._efficient_attention_forward": efficient,
        f"{attend}.chosen": lambda call: choice.choose(call, HERE),
        f"{attend}.capability": lambda _: (9, 0),
    }
