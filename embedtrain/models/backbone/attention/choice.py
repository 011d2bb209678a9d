"""Which backend computes attention over texts laid end to end: one table, read from the top."""

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch

logger = logging.getLogger(__name__)

HALF = (torch.bfloat16, torch.float16)
PADDED = "padded"
"""No backend: texts have to be padded."""


@dataclass(frozen=True)
class Call:
    """What is asked for, as far as it decides who can do it."""

    device: str
    """Type of the device."""
    dtype: torch.dtype
    head_dim: int
    capability: tuple[int, int] = (0, 0)
    """Compute capability of a CUDA device."""
    windowed: bool = False
    """Whether a token sees only some on either side."""
    causal: bool = False
    dropout: bool = False
    softcap: bool = False
    shortened: bool = False
    """Whether some tokens are not looked at."""
    gradients: bool = False


@dataclass(frozen=True)
class Installed:
    """What this Python has."""

    varlen: bool = False
    """``torch.nn.attention.varlen`` with grouped keys (torch 2.12)."""
    torch_flash: bool = False
    """A torch that was built with flash attention."""
    flash_attn_3: bool = False
    flash_attn_2: bool = False
    kernels: bool = False
    """The package that loads compiled kernels from the Hub."""
    triton: bool = False


@dataclass(frozen=True)
class Choice:
    """A backend, or ``padded``, and why."""

    backend: str
    reason: str


Obstacle = Callable[[Call, Installed], str | None]


def _flash(call: Call) -> str | None:
    """Say what keeps flash attention from this call."""
    limits = (
        (call.dtype not in HALF, f"flash attention computes no {_name(call.dtype)}"),
        (call.capability < (8, 0), "flash attention needs compute capability 8.0"),
        (call.head_dim > 256, "flash attention's heads have at most 256 dimensions"),
        (call.softcap, "flash attention here has no cap on scores"),
        (
            # It aligns the last query with the last key.
            call.shortened and (call.causal or call.windowed),
            "flash attention cannot leave tokens out where order counts",
        ),
        (
            call.gradients and call.head_dim > 192 and _small_chip(call.capability)
            and (call.head_dim <= 224 or call.dropout),
            "flash attention's backward pass for such wide heads does not fit this chip",
        ),
    )  # fmt: skip
    return next((reason for limited, reason in limits if limited), None)


def _small_chip(capability: tuple[int, int]) -> bool:
    return (8, 6) <= capability < (9, 0) or capability[0] == 12


def _varlen(call: Call, has: Installed) -> str | None:
    if not has.varlen:
        return "torch is older than 2.12"
    return "varlen_attn has no dropout" if call.dropout else _flash(call)


def _flash_3(call: Call, has: Installed) -> str | None:
    if not has.flash_attn_3:
        return "flash-attn 3 is not installed"
    if call.capability[0] != 9:
        return "flash-attn 3 is for compute capability 9"
    return "flash-attn 3 has no dropout" if call.dropout else _flash(call)


def _flash_2(call: Call, has: Installed) -> str | None:
    return _flash(call) if has.flash_attn_2 else "flash-attn 2 is not installed"


def _torch_flash(call: Call, has: Installed) -> str | None:
    return _flash(call) if has.torch_flash else "torch was built without flash attention"


def _kernels(call: Call, has: Installed) -> str | None:
    return _flash(call) if has.kernels else "the package kernels is not installed"


def _efficient(call: Call, _has: Installed) -> str | None:
    if call.softcap or call.windowed:
        return "memory-efficient attention has neither windows nor a cap on scores"
    return _type_too_new(call, (5, 0))


def _flex(call: Call, has: Installed) -> str | None:
    if not has.triton:
        return "FlexAttention needs triton"
    return "FlexAttention has no dropout" if call.dropout else _type_too_new(call, (7, 0))


def _type_too_new(call: Call, oldest: tuple[int, int]) -> str | None:
    if call.dtype not in (*HALF, torch.float32):
        return f"no fused attention computes {_name(call.dtype)}"
    if call.capability < ((8, 0) if call.dtype == torch.bfloat16 else oldest):
        return f"a GPU of compute capability {_dotted(call)} is too old for {_name(call.dtype)}"
    return None


CUDA_TABLE: tuple[tuple[str, str, Obstacle], ...] = (
    ("flash_attn_3", "made for this chip", _flash_3),
    ("varlen", "torch's own variable-length attention", _varlen),
    ("flash_attn_2", "drops attention weights", _flash_2),
    ("torch_flash", "torch's own kernel, which drops attention weights too", _torch_flash),
    ("kernels", "a compiled kernel from the Hub", _kernels),
    ("efficient", "any type of number, any chip, and dropout", _efficient),
    ("flex", "windows and caps in any type of number", _flex),
)
"""Backends of a CUDA device with the reason for each, best first; the first without an obstacle is taken."""


def choose(call: Call, has: Installed) -> Choice:
    """Return who computes a call.

    A CPU and devices other than CUDA have one way. On CUDA it is the first row of the table that can; where
    none can, texts are padded and the reason names what was in the way.
    """
    if call.device != "cuda":
        return Choice("grouped", "no variable-length kernel for this device")
    obstacles = []
    for backend, reason, obstacle in CUDA_TABLE:
        problem = obstacle(call, has)
        if problem is None:
            where = f"{_name(call.dtype)} on compute capability {_dotted(call)}"
            return Choice(backend, f"{reason} ({where})")
        obstacles.append(problem)
    return Choice(PADDED, "; ".join(dict.fromkeys(obstacles)))


def _dotted(call: Call) -> str:
    return ".".join(map(str, call.capability))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def installed() -> Installed:
    """Look, once, what is installed; nothing is imported but torch."""
    built = torch.backends.cuda.is_flash_attention_available()
    return Installed(
        varlen=built and _has_varlen(),
        torch_flash=built,
        flash_attn_3=find_spec("flash_attn_interface") is not None,
        flash_attn_2=find_spec("flash_attn") is not None,
        kernels=_is_package("kernels"),
        triton=find_spec("triton") is not None,
    )


def _is_package(name: str) -> bool:
    """Whether a package is installed; a folder of that name in the current directory is none."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def _has_varlen() -> bool:
    if find_spec("torch.nn.attention.varlen") is None:
        return False
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


@cache
def capability(index: int) -> tuple[int, int]:
    """Return the compute capability of a CUDA device."""
    return torch.cuda.get_device_capability(index)


@cache
def chosen(call: Call) -> Choice:
    """Choose for this machine, and say once what and why."""
    choice = choose(call, installed())
    announce(choice)
    return choice


@cache
def announce(choice: Choice) -> None:
    """Write a choice into the log."""
    logger.info("attention without padding: %s, %s", choice.backend, choice.reason)
