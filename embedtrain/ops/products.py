"""Matrix products of the operations: float32 results, whatever the operands have, on the units made for them.

A GPU multiplies bfloat16 numbers many times as fast as float32 ones and adds up in float32 by itself: each
product of two bfloat16 numbers is exact there. What must stay float32 (a tile that is derived further) runs
as TF32 where the embeddings had 16 bits anyway, which is finer than they are. A CPU gains nothing from
16-bit operands and multiplies float32 as ever.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.precision import float32_products

HALF = (torch.bfloat16, torch.float16)
"""The types of 16 bits."""

TILE_BYTES = 1 << 30
"""Most memory of one tile on a GPU: thinner tiles read the candidates more often (computed, not measured: at
65,536 x 65,536 x 768 in bfloat16 18 tiles move 11 GB beside the scores' 77 GB, 48 MiB tiles 296 GB)."""
TILE_SHARE = 64
"""A tile takes at most one part in so many of the device's memory. Of all of it, not of what is free: the
height of a tile decides the order of sums, so the same run gives the same bits."""


def multiplies_half(device: torch.device) -> bool:
    """Whether 16-bit operands with a float32 result are faster here, and known to this torch.

    ``addmm`` that adds to float32 came with torch 2.10 (https://github.com/pytorch/pytorch/pull/167931).
    """
    return device.type == "cuda" and torch.__version__ >= "2.10"


def operand_dtype(*factors: Tensor, wide: torch.dtype) -> torch.dtype:
    """Return the type in which to multiply: bfloat16 if all factors have it and the device gains by it.

    float16 is left out: exponentials that are not divided by their sum yet may exceed its range.
    """
    half = all(factor.dtype == torch.bfloat16 for factor in factors)
    return torch.bfloat16 if half and multiplies_half(factors[0].device) else wide


def tile_bytes(device: torch.device, on_cpu: int) -> int:
    """Return the budget of a tile: ``on_cpu`` where a cache is to hold it, a share of the memory of a GPU."""
    if device.type != "cuda":
        return on_cpu
    return min(int(torch.cuda.get_device_properties(device).total_memory) // TILE_SHARE, TILE_BYTES)


def multiply(
    left: Float[Tensor, "*batch rows inner"],
    right: Float[Tensor, "*batch inner columns"],
    wide: torch.dtype,
) -> Float[Tensor, "*batch rows columns"]:
    """Return the product in the type ``wide``; factors of fewer bits are multiplied as they are."""
    batched = left.dim() > 2
    if left.dtype == wide:
        return torch.bmm(left, right) if batched else torch.mm(left, right)
    if left.device.type != "cuda":  # no unit for it: the same numbers, widened
        left, right = left.to(wide), right.to(wide)
        return torch.bmm(left, right) if batched else torch.mm(left, right)
    product: Tensor = (torch.bmm if batched else torch.mm)(left, right, out_dtype=wide)
    return product


def multiply_into(
    out: Float[Tensor, "rows columns"],
    left: Float[Tensor, "rows inner"],
    right: Float[Tensor, "inner columns"],
) -> None:
    """Write the product into ``out``, in whose type it is added up."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    elif left.device.type != "cuda":
        torch.mm(left.to(out.dtype), right.to(out.dtype), out=out)
    else:
        torch.mm(left, right, out_dtype=out.dtype, out=out)


def add_product(
    out: Float[Tensor, "rows columns"],
    left: Float[Tensor, "rows inner"],
    right: Float[Tensor, "inner columns"],
) -> None:
    """Add the product to ``out``.

    ``addmm(out=)`` and not ``addmm_``, which torch's flop counter does not see (torch 2.13).
    """
    if left.dtype == out.dtype:
        torch.addmm(out, left, right, out=out)
    elif left.device.type != "cuda":
        torch.addmm(out, left.to(out.dtype), right.to(out.dtype), out=out)
    else:
        torch.addmm(out, left, right, out_dtype=out.dtype, out=out)


def as_fine_as(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Let float32 products inside be as fine as embeddings of ``dtype`` are: TF32 if they have 16 bits.

    Embeddings of float32 keep what the process is set to.
    """
    return float32_products("tf32", device.type) if dtype in HALF else nullcontext()
