"""Where the kernels can run: which device, which compiled architecture, or the interpreter."""

import os

import torch

ARCHITECTURES = (80, 90, 100)
"""Compute capabilities that every configuration is compiled and checked for: A100, H100, B200 and kin."""


def interpreting() -> bool:
    """Whether Triton executes kernels in Python on CPU tensors, which only tests want."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def architecture(device: torch.device) -> int | None:
    """Return the entry of :data:`ARCHITECTURES` that serves ``device``, or ``None``.

    Capabilities 8.6, 8.9 and 12.0 have less shared memory than the tiles need. The interpreter takes the
    configurations of 9.0.
    """
    if device.type == "cpu":
        return 90 if interpreting() else None
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    if major == 10:
        return 100
    return 10 * major if (major, minor) in {(8, 0), (9, 0)} else None
