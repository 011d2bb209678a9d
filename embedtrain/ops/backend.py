"""How an operation is computed: the word a recipe may give, and the lazy way to the Triton kernels."""

from importlib import import_module
from types import ModuleType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.errors import UserError

Backend = Literal["auto", "reference", "chunked", "fused"]
"""``reference`` defines the operation, ``chunked`` runs it in tiles of library GEMMs on any device,
``fused`` runs a Triton kernel on CUDA, ``auto`` chooses; no result depends on it beyond rounding."""


KERNEL_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
"""The types that kernels were compiled for, by their names there."""


def aligned_rows(vectors: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Lay rows out as the kernels were compiled for: 16 bytes at a time."""
    aligned = (
        vectors.stride(1) == 1 and vectors.stride(0) % 16 == 0 and vectors.data_ptr() % 16 == 0
    )
    return vectors if aligned else vectors.clone(memory_format=torch.contiguous_format)


def load_fused(operation: str, module: str = "fused") -> ModuleType:
    """Import ``embedtrain.ops.<operation>.<module>``; Triton is loaded only when a user asks for it."""
    try:
        return import_module(f"embedtrain.ops.{operation}.{module}")
    except ImportError as error:
        raise UserError(
            f"{operation}(backend='fused')",
            "needs the Triton kernels, which cannot be imported here",
            got=str(error),
            cure="Install triton, or use backend='chunked'",
        ) from error
