"""Keep a batch whose loss was not finite, for inspection."""

from dataclasses import fields
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from embedtrain.files import appearing
from embedtrain.packed import Movable


def save_batch(batch: Movable, folder: Path, step: int, rank: int) -> Path:
    """Write all tensors of a batch into one safetensors file, named by their fields, and return its path."""
    path = folder / f"bad-batch-step-{step:08d}-rank-{rank}.safetensors"
    source = str(getattr(batch, "source", 0))
    with appearing(path) as partial:
        save_file(
            _tensors(batch), partial, {"step": str(step), "rank": str(rank), "source": source}
        )
    return path


def _tensors(value: Movable, prefix: str = "") -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for field in fields(value):
        part = None if field.metadata.get("stays") else getattr(value, field.name)
        if isinstance(part, Movable):
            found |= _tensors(part, f"{prefix}{field.name}.")
        elif isinstance(part, Tensor):
            found[prefix + field.name] = part.detach().cpu().contiguous().clone()
    return found
