"""FlexAttention over texts laid end to end: whole blocks of other texts are skipped, the rest is masked."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from embedtrain.models.backbone.attention.layout import Layout
from embedtrain.models.backbone.attention.reference import capped
from embedtrain.models.backbone.attention.rules import UNLIMITED, Rules, Window
from embedtrain.packed import upload

BLOCK = 128


def flex(
    q: Float[Tensor, "tokens heads head_dim"],
    k: Float[Tensor, "tokens key_heads head_dim"],
    v: Float[Tensor, "tokens key_heads head_dim"],
    layout: Layout,
    rules: Rules,
) -> Float[Tensor, "tokens heads head_dim"]:
    """Attend within each text; windows, caps and any type of number, no dropout."""
    mask = layout.masks.get(rules.reach)
    if mask is None:
        mask = layout.masks[rules.reach] = document_mask(layout, rules.reach, q.device)
    width = max(16, 1 << (q.shape[-1] - 1).bit_length())  # its kernels want a power of two
    rows = [F.pad(x, (0, width - x.shape[-1])).transpose(0, 1)[None] for x in (q, k, v)]
    result = _compiled(q.device.type)(
        *rows,
        score_mod=_cap(rules.softcap) if rules.softcap else None,
        block_mask=mask,
        scale=rules.scale,
        enable_gqa=k.shape[1] != q.shape[1],
    )
    output: Tensor = result[0].transpose(0, 1)[..., : q.shape[-1]]
    return output


@cache
def _compiled(device: str) -> Callable[..., Any]:
    """Return the fused form, compiled once for any number of tokens; a CPU has none with a backward pass."""
    if device == "cpu":
        return flex_attention
    return torch.compile(flex_attention, dynamic=True)


@cache
def _cap(softcap: float) -> Callable[..., Tensor]:
    def score_mod(score: Tensor, *_places: Tensor) -> Tensor:
        return capped(score, softcap)

    return score_mod


def document_mask(layout: Layout, reach: Window, device: torch.device) -> BlockMask:
    """Return which blocks of tokens meet and which pairs in them; planned on the host, then sent."""
    sizes = np.asarray(layout.sizes)
    total = int(sizes.sum())
    document = upload(torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)), device)
    seen = None
    if layout.keys is not None:
        seen = torch.zeros(total, dtype=torch.bool, device=device)
        seen[layout.keys.places] = True
    left, right = reach

    def mask_mod(_text: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        allowed = document[query] == document[key]
        if left != UNLIMITED:
            allowed &= query - key <= left
        if right != UNLIMITED:
            allowed &= key - query <= right
        return allowed if seen is None else allowed & seen[key]

    count, columns = _blocks(sizes, reach)
    return BlockMask.from_kv_blocks(
        upload(count[None, None], device),
        upload(columns[None, None], device),
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod,
        seq_lengths=(total, total),
    )


def _blocks(sizes: np.ndarray, reach: Window) -> tuple[Tensor, Tensor]:
    """Return how many blocks of keys each block of queries meets, and which; those lie side by side."""
    ends = sizes.cumsum()
    total, (left, right) = int(ends[-1]), reach
    first = np.arange(0, total, BLOCK)
    last = np.minimum(first + BLOCK, total) - 1
    begin = (ends - sizes)[np.searchsorted(ends, first, side="right")]
    end = ends[np.searchsorted(ends, last, side="right")] - 1
    if left != UNLIMITED:
        begin = np.maximum(begin, first - left)
    if right != UNLIMITED:
        end = np.minimum(end, last + right)
    begin, end = begin // BLOCK, end // BLOCK
    columns = np.minimum(begin[:, None] + np.arange(len(first)), len(first) - 1)
    count = torch.from_numpy(end - begin + 1).to(torch.int32)
    return count, torch.from_numpy(columns).to(torch.int32)
