"""Attention over texts laid end to end, so that next to no padding is computed.

Token-wise layers see one long row of tokens. Attention groups the texts of equal length (the caller has
sorted them) and runs one scaled dot product per group: no mask, no padding, exact. It plugs into
transformers through the public attention interface, so no model is patched.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface

from embedtrain.models.backbone.dropped_attention import dropped_attention

NAME = "embedtrain_packed"


def length_groups(
    lengths: Sequence[int], attended: Sequence[int] | None = None
) -> list[tuple[int, int, int]]:
    """Return ``(number of texts, length, attended)`` of each run of equally long texts.

    ``attended`` tokens of a text, from its first, are looked at; the others only look.
    """
    pairs = zip(lengths, lengths if attended is None else attended, strict=True)
    return [(len(list(run)), *pair) for pair, run in groupby(pairs)]


def split_groups(
    groups: list[tuple[int, int, int]], *row: Float[Tensor, "1 _ tokens head_dim"]
) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Yield queries, keys and values of each group, a text per row, and how many tokens are looked at."""
    sizes = [count * length for count, length, _ in groups]
    # One split per tensor: its backward is one concatenation, where slices would each fill a whole zero tensor.
    parts = zip(*(torch.split(x[0].transpose(0, 1), sizes) for x in row), strict=True)
    for (count, length, attended), part in zip(groups, parts, strict=True):
        q, k, v = (x.reshape(count, length, -1, x.shape[-1]).transpose(1, 2) for x in part)
        yield q, k, v, attended


def join_groups(results: Sequence[Tensor]) -> Float[Tensor, "1 tokens heads head_dim"]:
    """Lay what each group gives, ``[texts, heads, length, head_dim]``, end to end again."""
    return torch.cat([result.transpose(1, 2).flatten(0, 1) for result in results])[None]


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
    if on_cpu and dropout > 0 and key.shape == query.shape:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        with torch.autocast("cpu", enabled=False):
            result = dropped_attention(
                q, k, v, sequence_groups, scale, dropout, is_causal=is_causal
            )
        return result[None].to(dtype), None
    attend = partial(
        F.scaled_dot_product_attention,
        dropout_p=dropout,
        scale=scaling,
        is_causal=is_causal,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    with torch.autocast(query.device.type, enabled=not on_cpu and torch.is_autocast_enabled()):
        groups = split_groups(sequence_groups, query, key, value)
        results = [attend(q, k[:, :, :seen], v[:, :, :seen]) for q, k, v, seen in groups]
    return join_groups(results).to(dtype), None


AttentionInterface.register(NAME, packed_attention)
