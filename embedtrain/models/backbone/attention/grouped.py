"""The CPU's way: texts of equal length, which stand side by side, share one scaled dot product. No padding, exact."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from embedtrain.models.backbone.attention.dropped import dropped_attention
from embedtrain.models.backbone.attention.layout import Groups, Layout
from embedtrain.models.backbone.attention.reference import capped, masked_softmax
from embedtrain.models.backbone.attention.rules import CAUSAL, UNLIMITED, WHOLE, Rules, Window, band

LEAST_BLOCK = 64
"""Queries of a block in a layer with a window, at least."""


def grouped_attention(
    q: Float[Tensor, "queries heads head_dim"],
    k: Float[Tensor, "tokens key_heads head_dim"],
    v: Float[Tensor, "tokens key_heads head_dim"],
    layout: Layout,
    rules: Rules,
) -> Float[Tensor, "queries heads head_dim"]:
    """Attend within each text, group by group; queries are those of all tokens or of each text's first.

    On CPU the product runs in float32 even under bf16 autocast: there the bf16 backward of flash
    attention is several times slower than the float32 one.
    """
    on_cpu = q.device.type == "cpu"
    if on_cpu and torch.bfloat16 in {q.dtype, k.dtype, v.dtype}:
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast(q.device.type, enabled=not on_cpu and torch.is_autocast_enabled()):
        if on_cpu and rules.dropout > 0 and k.shape == q.shape and not rules.softcap:
            return dropped_attention(q, k, v, layout.groups, rules)
        groups = split_groups(layout.groups, q, k, v)
        return join_groups([attend_alike(*rows, rules) for rows in groups])


def split_groups(
    groups: Groups,
    q: Float[Tensor, "queries heads head_dim"],
    k: Float[Tensor, "tokens key_heads head_dim"],
    v: Float[Tensor, "tokens key_heads head_dim"],
) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Yield queries, keys and values of each group, a text per row, and how many tokens are looked at."""
    sizes = [count * length for count, length, _ in groups]
    asking = sizes if len(q) == len(k) else [count for count, _, _ in groups]
    # One split per tensor: its backward is one concatenation, where slices would each fill a whole zero tensor.
    parts = zip(*map(torch.split, (q, k, v), (asking, sizes, sizes)), strict=True)
    for (count, _, attended), part in zip(groups, parts, strict=True):
        q, k, v = (x.reshape(count, -1, *x.shape[1:]).transpose(1, 2) for x in part)
        yield q, k, v, attended


def join_groups(results: Sequence[Tensor]) -> Float[Tensor, "tokens heads head_dim"]:
    """Lay what each group gives, ``[texts, heads, length, head_dim]``, end to end again."""
    return torch.cat([result.transpose(1, 2).flatten(0, 1) for result in results])


def attend_alike(
    q: Float[Tensor, "texts heads length head_dim"],
    k: Float[Tensor, "texts key_heads keys head_dim"],
    v: Float[Tensor, "texts key_heads keys head_dim"],
    attended: int,
    rules: Rules,
) -> Float[Tensor, "texts heads length head_dim"]:
    """Attend within texts of one length, each to its first ``attended`` tokens."""
    length = q.shape[2]
    k, v = k[:, :, :attended], v[:, :, :attended]
    reach = rules.within(length, attended)
    if reach == WHOLE or (reach == CAUSAL and not rules.softcap):
        return _product(q, k, v, rules, None, causal=reach == CAUSAL)
    left, right = (length if side == UNLIMITED else side for side in reach)
    block = max(LEAST_BLOCK, left + right)
    if -(-length // block) * block * (block + left + right) < length * attended:
        return _in_blocks(q, k, v, rules, block, (left, right))
    places = torch.arange(length, device=q.device)
    return _product(q, k, v, rules, band(places, places[:attended], reach))


def _in_blocks(
    q: Tensor, k: Tensor, v: Tensor, rules: Rules, block: int, reach: Window
) -> Float[Tensor, "texts heads length head_dim"]:
    """Attend where a window is short beside the texts: each block of queries meets the keys within its reach.

    Time and memory grow with the length and not with its square.
    """
    left, right = reach
    texts, _, length, _ = q.shape
    attended, count = k.shape[2], -(-length // block)
    spare = count * block - length
    q = F.pad(q, (0, 0, 0, spare))
    k, v = (F.pad(x, (0, 0, left, count * block - attended + right)) for x in (k, v))
    # Blocks stand beside texts: [texts * blocks, heads, rows, head_dim].
    q = q.reshape(texts, -1, count, block, q.shape[-1]).transpose(1, 2).flatten(0, 1)
    k, v = (
        x.unfold(2, block + left + right, block).permute(0, 2, 1, 4, 3).flatten(0, 1)
        for x in (k, v)
    )
    starts = torch.arange(count, device=q.device)[:, None, None] * block
    rows, columns = torch.arange(block), torch.arange(block + left + right) - left
    seen = band(rows, columns, reach).to(q.device)
    places = columns.to(q.device) + starts
    seen = seen & (places >= 0) & (places < attended)
    seen = seen[None, :, None].expand(texts, -1, -1, -1, -1).flatten(0, 1)
    result = _product(q, k, v, rules, seen)
    result = result.reshape(texts, count, *result.shape[1:])
    return result.transpose(1, 2).flatten(2, 3)[:, :, :length]


def _product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rules: Rules,
    seen: Bool[Tensor, "*some queries keys"] | None,
    *,
    causal: bool = False,
) -> Tensor:
    grouped = k.shape[1] != q.shape[1]
    if not rules.softcap:
        return F.scaled_dot_product_attention(
            q, k, v, seen, rules.dropout, causal, scale=rules.scale, enable_gqa=grouped
        )
    if grouped:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = capped(q @ k.mT * rules.scale, rules.softcap)
    weights = scores.softmax(-1) if seen is None else masked_softmax(scores, seen)
    return F.dropout(weights, rules.dropout) @ v
