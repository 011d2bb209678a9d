"""In what numbers matrix products are computed, and for how long.

torch is imported inside: recipes and commands name a precision before it is loaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""What may be asked for. ``auto`` is bf16 on a GPU that computes it, and fp32 elsewhere."""
Chosen = Literal["fp32", "bf16", "fp16"]


def choose(precision: Precision, device_type: str) -> Chosen:
    """Return the precision to compute in on ``cpu`` or ``cuda`` where no gradient is wanted."""
    if precision != "auto":
        return precision
    if device_type != "cuda":
        return "fp32"
    import torch

    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


@contextmanager
def computing(precision: Chosen, device_type: str) -> Iterator[None]:
    """Compute matrix products in ``precision`` while the block runs, whatever surrounds it.

    bf16 and fp16 are autocast: weights, norms and softmax stay float32. Products that stay float32 all the same
    may be rounded to TF32 on a GPU then; under fp32 they are exact.
    """
    import torch

    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    half = precision != "fp32"
    with (
        float32_products("tf32" if half else "ieee", device_type),
        torch.autocast(device_type, dtype, enabled=half),
    ):
        yield


@contextmanager
def float32_products(rounding: Literal["ieee", "tf32"], device_type: str) -> Iterator[None]:
    """Say how a GPU multiplies matrices of float32 while the block runs, then as it did before.

    ``tf32`` rounds what is multiplied to 11 significant bits and is up to 8 times as fast; ``ieee`` does not.
    The setting is the process's. A CPU has none.
    """
    if device_type != "cuda":
        yield
        return
    import torch

    settings = torch.backends.cuda.matmul
    # torch 2.9 brought the name and warns of the old one; drop the old when that is the oldest supported.
    name, value = ("fp32_precision", rounding)
    if not hasattr(settings, name):
        name, value = "allow_tf32", rounding == "tf32"  # type: ignore[assignment]
    before = getattr(settings, name)
    setattr(settings, name, value)
    try:
        yield
    finally:
        setattr(settings, name, before)
