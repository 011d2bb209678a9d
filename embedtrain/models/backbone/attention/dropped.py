"""Attention with dropout over texts laid end to end, which keeps no score between forward and backward.

torch has no fast attention with dropout on a CPU: it keeps each score three times, in float32, and a copy of all
queries and keys. That is half of what a small encoder keeps, and in blocks of ever other sizes, which break the
heap into pieces. Here a byte says for each score whether it was dropped, all else that is kept are
the rows themselves, and the backward pass computes the scores again: a product that is narrow beside the layers.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.models.backbone.attention.layout import Groups
from embedtrain.models.backbone.attention.reference import masked_softmax
from embedtrain.models.backbone.attention.rules import WHOLE, Rules, band

Rows = Float[Tensor, "tokens heads head_dim"]


def dropped_attention(
    query: Rows,
    key: Rows,
    value: Rows,
    groups: Groups,
    rules: Rules,
) -> Rows:
    """Attend within each text, on a CPU, and drop attention weights.

    Args:
        query: Rows of texts laid end to end.
        key: The same.
        value: The same.
        groups: Number of texts, length and how many tokens are looked at, of each run of equally long texts.
        rules: Scale, window and the share of the weights that is dropped; the others grow by
            ``1 / (1 - dropout)``. Scores have no cap.
    """
    result: Tensor = _DroppedAttention.apply(query, key, value, groups, rules)  # type: ignore[no-untyped-call]
    return result


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        query: Rows,
        key: Rows,
        value: Rows,
        groups: Groups,
        rules: Rules,
    ) -> Rows:
        sizes = [n * query.shape[1] * length * seen for n, length, seen in groups]
        kept = torch.empty(sum(sizes), dtype=torch.bool).bernoulli_(1 - rules.dropout)
        result = torch.empty(query.shape, dtype=query.dtype)
        for (q, k, v, out), drawn in zip(
            _parts(groups, query, key, value, result), torch.split(kept, sizes), strict=True
        ):
            weights = _weights(q, k, rules)
            weights.mul_(drawn.view(weights.shape))
            out.copy_((weights @ v).div_(1 - rules.dropout))
        ctx.save_for_backward(query, key, value, kept)
        ctx.rest = groups, sizes, rules
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Rows) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        query, key, value, kept = ctx.saved_tensors
        groups, sizes, rules = ctx.rest
        rows = query, key, value
        results = [torch.zeros(x.shape, dtype=x.dtype) for x in rows]
        parts = _parts(
            groups, *rows, gradient.clone(memory_format=torch.contiguous_format), *results
        )
        for (q, k, v, g, q_out, k_out, v_out), drawn in zip(
            parts, torch.split(kept, sizes), strict=True
        ):
            weights = _weights(q, k, rules)
            mask = drawn.view(weights.shape)
            g.div_(1 - rules.dropout)
            v_out.copy_((weights * mask).transpose(-1, -2) @ g)
            slopes = (g @ v.transpose(-1, -2)).mul_(mask)
            slopes.mul_(weights)
            slopes.addcmul_(weights, slopes.sum(-1, keepdim=True), value=-1)
            q_out.copy_((slopes @ k).mul_(rules.scale))
            k_out.copy_((slopes.transpose(-1, -2) @ q).mul_(rules.scale))
        return (*results, None, None)


def _parts(groups: Groups, *rows: Rows) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of each group, ``[texts, heads, length, head_dim]``; of keys and values those looked at.

    Rows come as queries, keys, values, results, then the gradients of the first three.
    """
    start = 0
    for count, length, seen in groups:
        views = [
            x[start : start + count * length].view(count, length, *x.shape[1:]).transpose(1, 2)
            for x in rows
        ]
        start += count * length
        limited = (1, 2, 5, 6)
        yield tuple(x[:, :, :seen] if i in limited else x for i, x in enumerate(views))


def _weights(q: Tensor, k: Tensor, rules: Rules) -> Tensor:
    scores = (q * rules.scale) @ k.transpose(-1, -2)
    reach = rules.within(*scores.shape[-2:])
    if reach == WHOLE:
        return torch.softmax(scores, -1)
    rows, columns = (torch.arange(size) for size in scores.shape[-2:])
    return masked_softmax(scores, band(rows, columns, reach))
