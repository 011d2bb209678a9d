"""Rematerialisation that remembers the few results which are dear to compute and cheap to keep.

Encoding a chunk again in the backward pass repeats every product. Linear layers that narrow earn their
place in memory: the second one of a feed-forward block does a third of the multiplications of a transformer
layer and leaves one vector of the model's width per token. Their results are kept in the first pass and
recalled in the second: the same bits, without the product. Everything else is computed again. All that chunks keep
lies there at once when the backward pass begins, so only the first :data:`MOST_CHUNKS` keep any: whatever the batch,
that is about half of what a chunk takes while its layers are gone back through.

This is selective activation checkpointing on torch functions. torch's own works on dispatched operators,
which are so many here (views of small groups) that asking about each costs what recalling saves.
"""

import mmap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

MOST_CHUNKS = 8
"""A transformer's layer keeps about sixteen vectors of its width of a token, and one of them here."""
OWN_PAGES = 1 << 20
"""Bytes from which a kept result gets pages of its own."""


def recall_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return the contexts of the first and the second pass, for ``checkpoint(context_fn=...)``."""
    kept: list[Tensor] = []
    return _Narrowing(kept, recall=False), _Narrowing(kept, recall=True)


class _Narrowing(TorchFunctionMode):
    """Keeps the results of narrowing linear layers, or answers with those that were kept."""

    def __init__(self, kept: list[Tensor], *, recall: bool) -> None:
        super().__init__()
        self.kept = kept
        self.recall = recall

    def __enter__(self) -> "_Narrowing":
        self.place = 0  # a graph that is retained is gone through again
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,  # noqa: ANN401 - torch's own signature
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if function is not F.linear or kwargs or args[1].shape[0] >= args[1].shape[1]:
            return function(*args, **(kwargs or {}))
        device = args[0].device.type
        if torch.is_autocast_enabled(device):  # the casts' graph brings the gradients back
            dtype = torch.get_autocast_dtype(device)
            args = [x if x is None else x.to(dtype) for x in args]
        known = self.kept[self.place] if self.recall else None
        self.place += 1
        # Both passes use the same function, because checkpoint compares what they save.
        result: Tensor = _KnownLinear.apply(*args, *[None] * (3 - len(args)), known)  # type: ignore[no-untyped-call]
        if not self.recall:
            self.kept.append(_set_aside(result.detach()))
        return result


def _set_aside(values: Tensor) -> Tensor:
    """Copy what a CPU keeps out of the heap: among blocks that live for a layer it leaves gaps that nothing fits.

    Raises:
        MemoryError: If the system has no more pages.
    """
    if values.device.type != "cpu" or values.nbytes < OWN_PAGES:
        return values
    try:
        pages = mmap.mmap(-1, values.nbytes)
    except OSError as error:
        raise MemoryError(str(error)) from error
    return torch.frombuffer(pages, dtype=values.dtype).view(values.shape).copy_(values)


class _KnownLinear(torch.autograd.Function):
    """A linear layer whose result may be known already."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        known: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return F.linear(rows, weight, bias) if known is None else known.detach()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        flat = gradient.flatten(0, -2)
        return (
            gradient @ weight if wanted[0] else None,
            flat.T @ rows.flatten(0, -2) if wanted[1] else None,
            flat.sum(0) if wanted[2] else None,
            None,
        )
