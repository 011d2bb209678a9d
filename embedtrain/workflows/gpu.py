"""What a machine with a GPU lacks for training, and what that costs: facts first, then what follows from them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from embedtrain.training.devices import Device, device_of_name, uses_tf32

DRIVER_FILE = Path("/proc/driver/nvidia/version")
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
"""By the version of CUDA that torch was built with.

Source: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html."""
VARLEN = {"torch": "torch.nn.attention.varlen", "flash_attn": "flash_attn"}
FUSED = ((8, 0), (9, 0), (10, 0), (10, 3))
"""Capabilities that the Triton kernels are compiled and checked for."""


@dataclass(frozen=True)
class Facts:
    """What the system and torch say of the machine's first GPU.

    Attributes:
        driver: Version of NVIDIA's driver; None where there is none.
        cuda: Version of CUDA that torch was built with; None for a build for CPUs.
        torch: Its version.
        name: Of the GPU; None where torch sees none.
        capability: Its compute capability.
        tf32: Whether torch may round float32 products.
        triton: Whether it can be imported.
        varlen: What computes attention without padding: ``torch``, ``flash_attn``, or neither (None).
    """

    driver: str | None
    cuda: str | None
    torch: str
    name: str | None = None
    capability: tuple[int, int] = (0, 0)
    tf32: bool = False
    triton: bool = False
    varlen: str | None = None


@dataclass(frozen=True)
class Finding:
    """Something that is looked at, whether it is as it should be, and if not what that costs and how to mend it."""

    what: str
    found: str
    is_good: bool = True
    cost: str = ""
    cure: str = ""


def read_facts() -> Facts | None:
    """Ask the machine; None where there is neither a driver nor a GPU that torch sees."""
    driver = None
    if DRIVER_FILE.is_file():
        found = re.search(r"Module.*?\s(\d+\.\d+)", DRIVER_FILE.read_text(encoding="utf-8"))
        driver = found[1] if found else None
    cuda = torch.version.cuda
    if not torch.cuda.is_available():
        return None if driver is None else Facts(driver, cuda, torch.__version__)
    varlen = next((name for name, module in VARLEN.items() if find_spec(module) is not None), None)
    return Facts(
        driver,
        cuda,
        torch.__version__,
        torch.cuda.get_device_name(),
        torch.cuda.get_device_capability(),
        uses_tf32(),
        find_spec("triton") is not None,
        varlen,
    )


def find(facts: Facts) -> list[Finding]:
    """Judge the facts; where torch sees no GPU, that is all there is to say."""
    unseen = _unseen(facts)
    if unseen is not None:
        return [unseen]
    assert facts.name is not None
    known = device_of_name(facts.name)
    return [
        Finding("driver", facts.driver or "unknown"),
        _table(facts.name, known),
        *_numbers(facts, known),
        *_software(facts),
    ]


def _unseen(facts: Facts) -> Finding | None:
    """Say why torch sees no GPU beside a driver."""
    if facts.name is not None:
        return None
    cost = "everything runs on the CPU"
    if facts.cuda is None:
        cure = "Install a build for CUDA: https://pytorch.org/get-started/locally"
        return Finding("torch", f"{facts.torch}, built for CPUs", False, cost, cure)
    oldest = OLDEST_DRIVER.get(int(facts.cuda.partition(".")[0]))
    driver = facts.driver or "none"
    if oldest is not None and facts.driver and int(facts.driver.partition(".")[0]) < oldest:
        cure = f"Install driver {oldest} or newer, or a torch for an older CUDA"
        found = f"{driver}, older than the {oldest} that CUDA {facts.cuda} needs"
        return Finding("driver", found, False, cost, cure)
    cure = "See what `nvidia-smi` says, and CUDA_VISIBLE_DEVICES"
    return Finding("driver", f"{driver}, and torch sees no GPU", False, cost, cure)


def _table(name: str, known: Device | None) -> Finding:
    if known is not None:
        shown = f"{name}: {known.bf16:g} TFLOP/s bf16, {known.bandwidth:g} TB/s by its data sheet"
        return Finding("GPU", shown)
    cure = "Add a row with its source to embedtrain/training/devices.py"
    found = f"{name}, not in the table of devices"
    return Finding("GPU", found, False, "the log shows no MFU and nothing is predicted", cure)


def _numbers(facts: Facts, known: Device | None) -> Iterator[Finding]:
    """Judge how matrices are multiplied."""
    old = facts.capability < (8, 0)
    capability = ".".join(map(str, facts.capability))
    if old:
        cost = "products run in float32, without tensor cores"
        cure = "Use a GPU of compute capability 8.0 or higher"
        yield Finding("bf16", f"not computed (capability {capability})", False, cost, cure)
        return
    yield Finding("bf16", "computed, and what trainer.precision: auto takes")
    if facts.tf32:
        yield Finding("TF32", "allowed for products that stay float32")
        return
    share = "" if known is None else f" at {known.fp32:g} of {known.tf32:g} TFLOP/s"
    cure = "Nothing to do under bf16; torch.set_float32_matmul_precision('high') in Python"
    yield Finding("TF32", "off", False, f"precision: fp32 multiplies{share}, exactly", cure)


def _software(facts: Facts) -> Iterator[Finding]:
    """Judge what attention and losses can use."""
    if facts.varlen is None:
        cost = "texts are padded: twice the tokens where lengths are spread evenly"
        cure = "Install torch 2.11 or newer, or flash-attn"
        yield Finding("attention without padding", "missing", False, cost, cure)
    else:
        yield Finding("attention without padding", f"by {facts.varlen}")
    if not facts.triton:
        cost = "backend: auto takes chunked, whose scores travel through memory"
        yield Finding("Triton", "missing", False, cost, "pip install triton")
    elif facts.capability not in FUSED:
        capability = ".".join(map(str, facts.capability))
        cost = "backend: auto takes chunked: the fused kernels need more shared memory"
        yield Finding("fused kernels", f"none for capability {capability}", False, cost)
    else:
        yield Finding("fused kernels", "compile for this GPU")
