"""Rows of several matrices in any order, each copied once forth and once back."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.packed import upload

Slices = list[tuple[Tensor, Tensor]]
"""For each part, which of its rows are chosen, and where they go."""


def chosen_rows(
    parts: Sequence[Float[Tensor, "_ dim"]], *orders: Int64[Tensor, " _"]
) -> tuple[Float[Tensor, "_ dim"], ...]:
    """Return the rows that each order, on the CPU, names of the parts laid end to end.

    ``torch.cat``, ``index_select`` and ``split`` do the same with three copies of all rows forth and three back.
    """
    tensors: tuple[Tensor, ...] = _ChosenRows.apply(orders, *parts)  # type: ignore[no-untyped-call]
    return tensors


class _ChosenRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, orders: tuple[Tensor, ...], *parts: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401 - torch documents no type
        ctx.set_materialize_grads(False)
        ctx.places = [_slices(order, parts) for order in orders]
        ctx.sizes = [len(part) for part in parts]
        results = []
        for order, places in zip(orders, ctx.places, strict=True):
            result = parts[0].new_empty(len(order), *parts[0].shape[1:])
            for part, (rows, targets) in zip(parts, places, strict=True):
                result.index_copy_(0, targets, part.index_select(0, rows))
            results.append(result)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return None, *_gradients_of_parts(ctx.sizes, ctx.places, gradients)


def _slices(order: Tensor, parts: Sequence[Tensor]) -> Slices:
    """Cut an order by the parts that its rows lie in."""
    sizes = torch.tensor([len(part) for part in parts])
    ends = sizes.cumsum(0)
    ordered, targets = order.sort(stable=True)
    counts = torch.bincount(torch.searchsorted(ends, ordered, right=True), minlength=len(parts))
    rows = ordered - (ends - sizes).repeat_interleave(counts)
    there = upload(torch.stack([rows, targets]), parts[0].device)
    return [(one, other) for one, other in torch.split(there, counts.tolist(), dim=1)]


def _gradients_of_parts(
    sizes: Sequence[int], places: Sequence[Slices], gradients: Sequence[Tensor | None]
) -> Iterator[Tensor | None]:
    """Add up what each row of a part was given wherever it went."""
    for number, size in enumerate(sizes):
        total = None
        for slices, gradient in zip(places, gradients, strict=True):
            if gradient is None:
                continue
            rows, targets = slices[number]
            if total is None:
                total = gradient.new_zeros(size, *gradient.shape[1:])
            total.index_add_(0, rows, gradient.index_select(0, targets))
        yield total
