"""Stage ``device``: what the device is, and what it reaches in bare products and copies."""

import platform
import subprocess
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
from gpu_report_setting import DTYPES, Row, Setting, attempt, measure, rounding, share

QUERIED = "driver_version,clocks.max.sm,clocks.sm,clocks.mem,power.limit,memory.total"
PACKAGES = ("torch", "triton", "transformers", "sentence-transformers", "flash-attn", "memeff")


def rows(setting: Setting) -> Iterator[Row]:
    """Yield facts, then rates."""
    yield {"fact": "device", "value": name(setting)}
    yield {"fact": "in the table", "value": setting.known.key if setting.known else "no"}
    for package in PACKAGES:
        yield {"fact": package, "value": _version(package)}
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setting.device)
        yield {"fact": "capability", "value": f"{properties.major}.{properties.minor}"}
        yield {"fact": "multiprocessors", "value": properties.multi_processor_count}
        yield {"fact": "memory", "value": f"{properties.total_memory / 2**30:.1f} GiB"}
        yield {"fact": "CUDA", "value": str(torch.version.cuda)}
        yield from _queried()
    (size,) = setting.pick((8192,), (128,))
    for product in DTYPES:
        yield attempt({"fact": f"product {size}^3 {product}"}, partial(_product, setting, product, size))  # fmt: skip
    yield attempt({"fact": "copy"}, partial(_copy, setting))


def name(setting: Setting) -> str:
    """Return what the driver, or the system, calls the device."""
    if setting.device.type == "cuda":
        return torch.cuda.get_device_name(setting.device)
    return f"cpu {platform.machine()}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not here"


def _queried() -> Iterator[Row]:
    """Yield what nvidia-smi says, where it is."""
    command = ["nvidia-smi", f"--query-gpu={QUERIED}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield {"fact": "nvidia-smi", "problem": type(error).__name__}
        return
    for fact, value in zip(QUERIED.split(","), done.stdout.strip().split(","), strict=False):
        yield {"fact": fact, "value": value.strip()}


def _product(setting: Setting, product: str, size: int) -> Row:
    dtype = DTYPES[product]
    left, right = (torch.randn(size, size, device=setting.device).to(dtype) for _ in range(2))
    with rounding(setting, product):
        found = measure(setting, lambda: left @ right)
    return share(setting, 2 * size**3, product, found)


def _copy(setting: Setting) -> Row:
    (size,) = setting.pick((2**30,), (2**16,))
    source = torch.empty(size, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    found = measure(setting, lambda: target.copy_(source))
    rate = 2 * size / (found["ms"] / 1000)
    return found | {"value": f"{rate / 1e12:.2f} TB/s"}
