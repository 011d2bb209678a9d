"""How an operation is computed: the word a recipe may give, and the lazy way to the Triton kernels."""

from importlib import import_module
from types import ModuleType
from typing import Literal

from embedtrain.errors import UserError

Backend = Literal["auto", "reference", "chunked", "fused"]
"""``reference`` defines the operation, ``chunked`` runs it in tiles of library GEMMs on any device,
``fused`` runs a Triton kernel on CUDA, ``auto`` chooses; no result depends on it beyond rounding."""


def no_fused_kernel(operation: str) -> UserError:
    """The error for ``backend="fused"`` where an operation has no Triton kernel."""
    return UserError(
        f"{operation}(backend='fused')", "does not exist", cure="Use backend='chunked'"
    )


def load_fused(operation: str) -> ModuleType:
    """Import ``embedtrain.ops.<operation>.fused``; Triton is loaded only when a user asks for it."""
    try:
        return import_module(f"embedtrain.ops.{operation}.fused")
    except ImportError as error:
        raise UserError(
            f"{operation}(backend='fused')",
            "needs the Triton kernels, which cannot be imported here",
            got=str(error),
            cure="Install triton, or use backend='chunked'",
        ) from error
