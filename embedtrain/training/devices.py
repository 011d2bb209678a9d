"""What devices can do at most, from their makers' data sheets: the denominator of MFU, the ground of predictions.

A device that is not in the table has no MFU: a guess would make every figure built on it one. Rates are dense
(data sheets often give twice as much, for weights half of which are 0) and add up in float32.
"""

import re
from dataclasses import dataclass
from typing import Literal

import torch

from embedtrain.errors import UserError

Product = Literal["bf16", "tf32", "fp32"]
"""How matrices are multiplied; float32 ones by TF32 where torch is allowed to round them."""
H100 = "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"
H200 = "https://nvdam.widen.net/s/nb5zzzsjdf/hpc-datasheet-sc23-h200-datasheet-3002446"
A100 = (
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
    "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
HGX = "https://www.nvidia.com/en-us/data-center/hgx/"
ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
AMPERE = (
    "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
)


@dataclass(frozen=True)
class Device:
    """A row of the table.

    Attributes:
        key: What ``--device`` takes.
        names: Pattern of the whole name that the driver gives it; a part of a device (MIG) has another.
        bf16: TFLOP/s of matrix products.
        tf32: See ``bf16``.
        fp32: See ``bf16``; without tensor cores.
        bandwidth: Of its memory, in TB/s.
        memory: In GB.
        source: Where the numbers stand.
    """

    key: str
    names: str
    bf16: int | float
    tf32: int | float
    fp32: int | float
    bandwidth: float
    memory: int
    source: str

    def peak(self, product: Product) -> float:
        """Return the floating-point operations that matrix products can do in a second."""
        return 1e12 * float(getattr(self, product))


DEVICES = (
    Device("b200", "NVIDIA B200", 2250, 1100, 75, 7.7, 180, HGX),
    Device("h200", "NVIDIA H200", 989, 494, 67, 4.8, 141, H200),
    Device("h200-nvl", "NVIDIA H200 NVL", 835, 418, 60, 4.8, 141, H200),
    Device("h100", "NVIDIA H100 80GB HBM3", 989, 494, 67, 3.35, 80, H100),
    Device("h100-nvl", "NVIDIA H100 NVL", 835, 418, 60, 3.9, 94, H100),
    Device("h100-pcie", "NVIDIA H100 PCIe", 756, 378, 51, 2.0, 80, H100),
    Device("a100", "NVIDIA A100-SXM4-80GB", 312, 156, 19.5, 2.04, 80, A100),
    Device("a100-pcie", "NVIDIA A100 80GB PCIe", 312, 156, 19.5, 1.94, 80, A100),
    Device("a100-40gb", r"NVIDIA A100-(SXM4|PCIE)-40GB", 312, 156, 19.5, 1.56, 40, A100),
    Device("l40s", "NVIDIA L40S", 362, 183, 91.6, 0.864, 48, "https://www.nvidia.com/en-us/data-center/l40s/"),
    Device("l4", "NVIDIA L4", 121, 60, 30.3, 0.3, 24, "https://www.nvidia.com/en-us/data-center/l4/"),
    Device("a10", "NVIDIA A10", 125, 62.5, 31.2, 0.6, 24, "https://www.nvidia.com/en-us/data-center/products/a10-gpu/"),
    Device("rtx-4090", "NVIDIA GeForce RTX 4090", 165, 82.6, 82.6, 1.01, 24, ADA),
    Device("rtx-3090", "NVIDIA GeForce RTX 3090", 71, 35.6, 35.6, 0.936, 24, AMPERE),
)  # fmt: skip
"""Without those whose data sheet gives no rate in bf16."""


def device_of_name(name: str) -> Device | None:
    """Return the row of the device that a driver calls so; None for one that is not in the table."""
    return next((one for one in DEVICES if re.fullmatch(one.names, name)), None)


def device_of_key(key: str) -> Device:
    """Return the row that a user asks for.

    Raises:
        UserError: If there is none.
    """
    for one in DEVICES:
        if one.key == key.lower():
            return one
    known = ", ".join(one.key for one in DEVICES)
    raise UserError(
        "--device", "is not in the table of devices", got=key, cure=f"Use one of {known}"
    )


def this_device(device: torch.device) -> Device | None:
    """Return the row of a device of this machine; None for CPUs, and for what is not in the table."""
    return device_of_name(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def product_type(precision: str) -> Product:
    """Return how a run of this precision (``bf16`` or ``fp32``) multiplies matrices on a GPU of this process."""
    if precision == "bf16":
        return "bf16"
    return "tf32" if uses_tf32() else "fp32"


def uses_tf32() -> bool:
    """Whether torch may round float32 matrices to TF32 in products on a GPU."""
    matmul = torch.backends.cuda.matmul
    # The setting of torch 2.9 and later; the older one must not be read beside it.
    chosen = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32) if chosen is None else chosen == "tf32"
