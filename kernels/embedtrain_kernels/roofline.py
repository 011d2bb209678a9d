"""What a kernel could reach at best: arithmetic from data sheets and from what the compiler says, no measurement.

A tile needs its products, its reads from the L2 cache, its stores, and its exponentials. The first three overlap;
exponentials overlap with them only where another block of the same multiprocessor computes meanwhile.
"""

from dataclasses import dataclass
from math import ceil

from embedtrain_kernels.catalogue import Entry

WARPS = 64
"""Warps that a multiprocessor holds at most."""
EXPONENTIALS_PER_CLOCK = 16
"""Of one multiprocessor (CUDA C++ programming guide, throughput of arithmetic instructions)."""
TF32X3 = 3
"""Products of TF32 that make one of float32."""


@dataclass(frozen=True)
class Device:
    """Peaks of one device: TFLOP/s without sparsity, TB/s, GHz."""

    name: str
    half: float
    tf32: float
    memory: float
    cache: float
    """Of the L2 cache: no data sheet says it; others measured the first two, the third is a guess."""
    multiprocessors: int
    clock: float


DEVICES = {
    80: Device("A100 SXM 80 GB", 312, 156, 2.04, 4.0, 108, 1.41),
    90: Device("H100 SXM", 989, 495, 3.35, 5.5, 132, 1.755),
    100: Device("B200", 2250, 1125, 8.0, 8.0, 148, 1.85),
}

DIMS = (128, 384, 768, 1024, 4096)
BATCHES = (4096, 16384, 65536)
"""Queries, and as many documents."""


@dataclass(frozen=True)
class Estimate:
    """Milliseconds that each part of a pass over the scores needs at least, and all together."""

    products: float
    cache: float
    stores: float
    exponentials: float
    together: float

    @property
    def share(self) -> float:
        """Part of the tensor cores' peak that is left."""
        return self.products / self.together


def occupancy(entry: Entry, blocks: int) -> float:
    """Return the share of a multiprocessor's warps that is resident."""
    return blocks * entry.launch["num_warps"] / WARPS


def estimate(entry: Entry, blocks: int, batch: int, dim: int) -> Estimate | None:
    """Estimate one pass of an InfoNCE kernel over ``batch`` queries and documents; ``None`` for others."""
    if not entry.kernel.fn.__name__.startswith("infonce_"):
        return None
    device, scores = DEVICES[entry.architecture], batch * batch
    size = 4 if entry.dtype == "fp32" else 2
    rows, columns = (entry.constants[name] for name in ("block_rows", "block_columns"))
    peak = device.tf32 / TF32X3 if entry.dtype == "fp32" else device.half
    products = 2 * scores * dim / peak / 1e9
    cache = scores * dim * size * (1 / rows + 1 / columns) / device.cache / 1e9
    writes = size if entry.kernel.fn.__name__ == "infonce_slopes" else 8 / columns
    stores = scores * writes / device.memory / 1e9
    number = 2 if entry.constants["has_columns"] else 1
    rate = EXPONENTIALS_PER_CLOCK * device.multiprocessors * device.clock
    exponentials = number * scores / rate / 1e6
    flow = max(products, cache, stores)
    whole = max(flow, exponentials) if blocks > 1 else flow + exponentials
    tiles, at_once = ceil(batch / rows) * ceil(batch / columns), blocks * device.multiprocessors
    whole *= ceil(tiles / at_once) * at_once / tiles  # the last wave is not full
    return Estimate(products, cache, stores, exponentials, whole)


def figures(entry: Entry, blocks: int) -> dict[str, object]:
    """Return occupancy and shares of the roofline, in percent, for the file of the check."""
    found: dict[str, object] = {"occupancy": round(100 * occupancy(entry, blocks))}
    shares = {
        f"{batch}x{dim}": round(100 * some.share)
        for batch in BATCHES
        for dim in DIMS
        if (some := estimate(entry, blocks, batch, dim)) is not None
    }
    return found | ({"roofline": shares} if shares else {})
