"""Launch of the softmax kernel."""

import torch
from torch import Tensor

from embedtrain_kernels.softmax_kernels import exponentiate_rows

BLOCK = 2048
"""Columns that one step of the kernel takes: 8 for each thread of 8 warps."""


def exponentiate(
    tile: Tensor, scale: Tensor | None = None, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Turn float32 logits into ``exp(logit - row maximum)``; return the maximum and the sum of each row.

    ``scale`` multiplies the rows of ``tile`` before. ``out``, float32 or of 16 bits, receives the
    exponentials; by default they replace the logits.
    """
    maximum = torch.empty(len(tile), dtype=torch.float32, device=tile.device)
    total = torch.empty_like(maximum)
    exponentials = tile if out is None else out
    exponentiate_rows[(len(tile),)](
        tile=tile,
        exponentials=exponentials,
        scale=maximum if scale is None else scale,
        maximum=maximum,
        total=total,
        num_columns=tile.shape[1],
        row_stride=tile.stride(0),
        exponentials_stride=exponentials.stride(0),
        has_scale=scale is not None,
        block_columns=BLOCK,
        num_warps=8,
        maxnreg=255,
    )
    return maximum, total
