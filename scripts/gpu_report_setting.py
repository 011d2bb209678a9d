"""What the stages of gpu_report.py share: where they run, how they time, and what a device could do at most."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from embedtrain.errors import UserError
from embedtrain.memory import is_out_of_memory
from embedtrain.precision import float32_products
from embedtrain.training.devices import Device, Product, this_device

Row = dict[str, object]
Step = Callable[[], object]
MIB = 2**20
WARM_UPS, REPEATS = 2, 5
LONGEST_SECONDS = 8.0
"""A cell whose estimate is longer is left out."""


class Missing(Exception):  # noqa: N818 - no error: what a bare machine lacks
    """Something that a row needs is not there; says what."""


@dataclass(frozen=True)
class Setting:
    """Where a stage runs, and how large its problems are."""

    device: torch.device
    tiny: bool
    folder: Path
    """Where a stage may leave files beside its rows."""

    @property
    def known(self) -> Device | None:
        """The row of the table of devices, if it has one."""
        return this_device(self.device)

    def pick(self, large: tuple[int, ...], tiny: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes to measure."""
        return tiny if self.tiny else large

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self, product: Product) -> float | None:
        """Return the operations a second of the data sheet."""
        return None if self.known is None else self.known.peak(product)


def measure(setting: Setting, step: Step, repeats: int = REPEATS) -> Row:
    """Return the median time of a step, and the memory that it takes beyond what was held before."""
    if setting.tiny:
        repeats = 1
    for _ in range(1 if setting.tiny else WARM_UPS):
        step()
    setting.synchronize()
    cuda = setting.device.type == "cuda"
    before = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times = [_seconds(setting, step) for _ in range(repeats)]
    row: Row = {"ms": round(1000 * statistics.median(times), 4)}
    if cuda:
        row["peak_mib"] = round((torch.cuda.max_memory_allocated() - before) / MIB, 1)
    return row


def _seconds(setting: Setting, step: Step) -> float:
    """Time one step by events where the device has them: the host is ahead of it."""
    if setting.device.type != "cuda":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def attempt(row: Row, work: Callable[[], Row]) -> Row:
    """Add what ``work`` finds to a row, or why it found nothing: one cell must not end a stage."""
    try:
        return row | work()
    except Missing as lack:
        return row | {"skipped": str(lack)}
    except ModuleNotFoundError as error:
        return row | {"skipped": f"{error.name} is not here"}
    except Exception as error:
        problem = "out of memory" if is_out_of_memory(error) else _first_line(error)
        return row | {"problem": problem}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what a cell leaves must not change the next


def supported(work: Callable[[], Row]) -> Row:
    """Do what an operation may refuse, saying what it does not support.

    Raises:
        Missing: In the place of that.
    """
    try:
        return work()
    except UserError as refusal:
        raise Missing(str(refusal).splitlines()[0][:160]) from refusal


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:200]


def share(setting: Setting, operations: float, product: Product, row: Row) -> Row:
    """Add the operations a second and their share of the peak in the data sheet, if there is one."""
    rate = operations / (float(str(row["ms"])) / 1000)
    found = row | {"tflops": round(rate / 1e12, 2)}
    peak = setting.peak(product)
    return found if peak is None else found | {"roofline": round(rate / peak, 3)}


def refuse_long(setting: Setting, operations: float, product: Product) -> None:
    """Leave a cell out that would take too long at a third of the peak.

    Raises:
        Missing: Saying so.
    """
    peak = setting.peak(product) or 1e14
    seconds = operations / (0.3 * peak) * (WARM_UPS + REPEATS)
    if seconds > LONGEST_SECONDS and not setting.tiny:
        raise Missing(f"would take about {seconds:.0f} s")


def rounding(setting: Setting, product: Product) -> AbstractContextManager[None]:
    """Multiply float32 matrices exactly, or by TF32."""
    return float32_products("tf32" if product == "tf32" else "ieee", setting.device.type)


DTYPES: dict[Product, torch.dtype] = {
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "fp32": torch.float32,
}
