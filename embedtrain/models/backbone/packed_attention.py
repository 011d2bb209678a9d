"""Attention over texts laid end to end, so that no padding is computed.

Token-wise layers see one long row of tokens. Attention groups the texts of equal length (the caller has
sorted them) and runs one scaled dot product per group: no mask, no padding, exact. It plugs into
transformers through the public attention interface, so no model is patched.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "embedtrain_packed"


def length_groups(
    lengths: Sequence[int], attended: Sequence[int] | None = None
) -> list[tuple[int, int, int]]:
    """Return ``(number of texts, length, attended)`` of each run of equally long texts.

    ``attended`` tokens of a text, from its first, are looked at; the others only look.
    """
    pairs = zip(lengths, lengths if attended is None else attended, strict=True)
    return [(len(list(run)), *pair) for pair, run in groupby(pairs)]


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens head_dim"],
    key: Float[Tensor, "1 key_heads tokens head_dim"],
    value: Float[Tensor, "1 key_heads tokens head_dim"],
    _attention_mask: Tensor | None,
    *,
    sequence_groups: list[tuple[int, int, int]],
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **_: Any,  # noqa: ANN401 - transformers passes what other backends need
) -> tuple[Float[Tensor, "1 tokens heads head_dim"], None]:
    """Attend within each text; the signature is that of transformers' attention functions.

    On CPU the product runs in float32 even under bf16 autocast: there the bf16 backward of flash
    attention is several times slower than the float32 one.
    """
    dtype = query.dtype
    if is_causal is None:  # a decoder that was told otherwise says so with each call
        is_causal = bool(getattr(module, "is_causal", False))
    on_cpu = query.device.type == "cpu"
    if on_cpu and dtype == torch.bfloat16:
        query, key, value = query.float(), key.float(), value.float()
    sizes = [count * length for count, length, _ in sequence_groups]
    # One split per tensor: its backward is one concatenation, where slices would each fill a whole zero tensor.
    parts = zip(
        *(torch.split(x[0].transpose(0, 1), sizes) for x in (query, key, value)), strict=True
    )
    heads, head_dim = query.shape[1], query.shape[3]
    results = []
    with torch.autocast(query.device.type, enabled=not on_cpu and torch.is_autocast_enabled()):
        for (count, length, attended), part in zip(sequence_groups, parts, strict=True):
            q, k, v = (x.reshape(count, length, -1, head_dim).transpose(1, 2) for x in part)
            if attended < length:
                k, v = k[:, :, :attended], v[:, :, :attended]
            out = F.scaled_dot_product_attention(
                q,
                k,
                v,
                dropout_p=dropout,
                scale=scaling,
                is_causal=is_causal,
                enable_gqa=k.shape[1] != heads,
            )
            results.append(out.transpose(1, 2).reshape(count * length, heads, head_dim))
    return torch.cat(results).to(dtype)[None], None


AttentionInterface.register(NAME, packed_attention)
