"""Means over the rows of all ranks, with gradient, for a few numbers in place of all the rows."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.ops.word_activity import counted, num_entries, word_activity
from embedtrain.training.ranks.gather import is_distributed
from embedtrain.types import WordActivity


def mean_columns(rows: Float[Tensor, "texts dim"], more_than: int = 0) -> WordActivity:
    """Do what :func:`embedtrain.ops.word_activity.word_activity` does over the rows of all ranks.

    One all-reduce of two numbers per column forward, one backward. A loss of these means is the same on every rank, and
    each rank's gradient is that of all ranks' losses together: the average over ranks, each loss weighed by its share of
    the queries as everywhere, makes it the gradient of the one big batch.
    """
    if not is_distributed():
        return word_activity(rows, more_than)
    rows = counted(rows, more_than)
    sums, active = rows.sum(0), num_entries(rows)[1].to(rows.dtype)
    number = rows.new_tensor([len(rows)])
    together: Tensor = _SumOverRanks.apply(torch.cat([sums, active, number]))  # type: ignore[no-untyped-call]
    means = together[:-1] / together[-1].detach()
    return WordActivity(means[: len(sums)], means[len(sums) :].detach())


def any_row(*sides: Float[Tensor, "_ dim"]) -> Bool[Tensor, " dim"]:
    """Return in which columns any row of any rank is above 0, the same on every rank."""
    found = torch.stack([(rows.detach() > 0).any(0) for rows in sides]).any(0)
    if not is_distributed():
        return found
    flags = found.to(torch.uint8)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return flags > 0


class _SumOverRanks(torch.autograd.Function):
    """An all-reduce whose gradient is all-reduced as well: every rank's loss reads every rank's rows."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - torch documents no type
        total = numbers.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
