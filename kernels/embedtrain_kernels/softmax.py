"""Launch of the softmax kernel."""

import torch
from torch import Tensor

from embedtrain_kernels.softmax_kernels import exponentiate_rows

BLOCK = 2048
"""Columns that one step of the kernel takes: 8 for each thread of 8 warps."""


def exponentiate(tile: Tensor) -> tuple[Tensor, Tensor]:
    """Replace float32 logits by ``exp(logit - row maximum)``; return the maximum and the sum of each row."""
    maximum = torch.empty(len(tile), dtype=torch.float32, device=tile.device)
    total = torch.empty_like(maximum)
    exponentiate_rows[(len(tile),)](
        tile=tile,
        maximum=maximum,
        total=total,
        num_columns=tile.shape[1],
        row_stride=tile.stride(0),
        block_columns=BLOCK,
        num_warps=8,
        maxnreg=255,
    )
    return maximum, total
