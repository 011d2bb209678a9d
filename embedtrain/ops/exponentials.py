"""What softmaxes share: a tile of logits becomes exponentials in place, and scores that do not count."""

from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def exponentiate(
    tile: Float[Tensor, "rows columns"],
    scale: Float[Tensor, " rows"] | None = None,
    out: Float[Tensor, "rows columns"] | None = None,
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Replace logits by ``exp(logit - row maximum)``; return the maximum and the sum of each row.

    A row of -inf alone gets the maximum -inf and the sum 0. On CUDA one Triton kernel reads the tile twice
    and writes it once, where plain torch takes four passes.

    Args:
        tile: Logits, or logits divided by ``scale``, which is positive; spoilt where ``out`` is another.
        scale: Multiplies the rows.
        out: Where the exponentials go, rounded to its type; the tile itself by default.
    """
    kernel = _kernel(tile.device)
    if kernel is not None and tile.dtype == torch.float32 and tile.numel():
        maximum, total = kernel.exponentiate(tile, scale, out)
        return maximum, total
    if scale is not None:
        tile.mul_(scale[:, None])
    maximum = tile.amax(1)
    finite = maximum.clamp_min(torch.finfo(tile.dtype).min)
    tile.sub_(finite[:, None]).exp_()
    if out is not None and out is not tile:
        out.copy_(tile)
    return maximum, tile.sum(1)


def only_where(scores: Float[Tensor, "..."], mask: Bool[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Put the lowest number where ``mask`` is not set, which wins no maximum and adds nothing to a softmax."""
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


@cache
def _kernel(device: torch.device) -> ModuleType | None:
    """Return the kernel's module where Triton is installed and the device was checked for."""
    if device.type != "cuda":
        return None
    try:
        availability = import_module("embedtrain_kernels.availability")
        found = availability.architecture(device)
        return None if found is None else import_module("embedtrain_kernels.softmax")
    except ImportError:
        return None
