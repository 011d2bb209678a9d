"""Which backend ``auto`` takes: a table with its reasons, or times that were measured on this machine.

Nothing is timed while a model trains: the same problem is computed in the same way, with the same bits, on
every run. ``embedtrain doctor --tune`` measures once and writes the times into the cache.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt, TypeAdapter, ValidationError

from embedtrain.errors import UserError
from embedtrain.files import default_cache, read_json, write_json
from embedtrain.ops.backend import KERNEL_DTYPES

Operation = Literal["infonce", "maxsim"]
logger = logging.getLogger(__name__)
FILE = "backends.json"
"""Measured times of all devices of this machine, in the cache."""


class Choice(NamedTuple):
    """What ``auto`` takes, and why."""

    backend: Literal["chunked", "fused"]
    reason: str


@dataclass(frozen=True)
class Rule:
    """Where the fused kernels are to be preferred."""

    operation: Operation
    architectures: tuple[int, ...]
    dtypes: tuple[str, ...]
    largest_dim: int
    fewest_scores: int
    """Of all queries with all documents; fewer fit one tile, and library products need three launches."""
    reason: str


HALF = ("bf16", "fp16")
KEPT_ON_CHIP = "the scores of the forward pass are never written, and their slopes once"
TOKENS_ON_CHIP = (
    "the similarities of tokens, which tiles would write and read, never leave the chip"
)
TABLE = (
    Rule("infonce", (80,), HALF, 768, 2**24, KEPT_ON_CHIP),
    Rule("infonce", (90,), HALF, 384, 2**24, KEPT_ON_CHIP),
    Rule("infonce", (100,), HALF, 128, 2**24, KEPT_ON_CHIP),
    Rule("infonce", (80, 90, 100), ("fp32",), 128, 2**24, KEPT_ON_CHIP),
    Rule("maxsim", (80, 90, 100), HALF, 128, 1, TOKENS_ON_CHIP),
)
"""Computed from data sheets, not measured. Chunked takes three library products (at an assumed 0.65 of the peak)
and moves 18 bytes for each score; fused takes two of its own (at the share of the peak that ``kernels/README.md``
computes: at 768 dimensions 77, 44 and 21 % on sm_80, sm_90 and sm_100 in the plain form, on sm_90 34 with guards)
and two library products, and moves 6 bytes. The more dimensions, the more the products weigh, and guarded forms
weigh more: so rules end where the plain form is still well ahead. What no rule names is chunked."""
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Measured:
    """Seconds of one problem, forward and backward, in both ways."""

    operation: Operation
    dtype: str
    dim: PositiveInt
    scores: PositiveInt
    fused_seconds: Seconds
    chunked_seconds: Seconds


TIMES: TypeAdapter[dict[str, list[Measured]]] = TypeAdapter(dict[str, list[Measured]])
"""The form of the file: the times of each device, by its name."""


def may_choose(device: torch.device) -> bool:
    """Whether there is anything to choose: kernels that are installed, and CUDA or, for tests, Triton's interpreter."""
    interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return (device.type == "cuda" or interpreted) and _installed()


@cache
def _installed() -> bool:
    return all(find_spec(name) is not None for name in ("triton", "embedtrain_kernels"))


def device_name(device: torch.device) -> str:
    """Return the name under which a device's times are kept."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"


def choose(
    operation: Operation, device: torch.device, dtype: torch.dtype, dim: int, scores: int
) -> Choice:
    """Return what is to be preferred for a problem; whether kernels support it is another question."""
    name = KERNEL_DTYPES.get(dtype, "")
    if known := _nearest(
        _times(default_cache(), device_name(device)), operation, name, dim, scores
    ):
        faster = known.fused_seconds < known.chunked_seconds
        return Choice("fused" if faster else "chunked", "measured on this machine")
    architecture = _architecture(device)
    for rule in TABLE if device.type == "cuda" else ():
        fits = rule.operation == operation and architecture in rule.architectures
        if (
            fits
            and name in rule.dtypes
            and dim <= rule.largest_dim
            and scores >= rule.fewest_scores
        ):
            return Choice("fused", rule.reason)
    return Choice("chunked", "no rule prefers the kernels for this problem")


@cache
def announce(operation: Operation, choice: Choice) -> None:
    """Say once what ``auto`` took."""
    logger.info("%s: backend auto is %s: %s", operation, *choice)


def keep(device: torch.device, times: list[Measured]) -> Path:
    """Write the times of a device into the cache, in place of older ones; return the file."""
    path = default_cache() / FILE
    kept = _read(path) | {device_name(device): times}
    write_json(path, {name: [asdict(one) for one in some] for name, some in kept.items()})
    _times.cache_clear()
    return path


@cache
def _times(folder: Path, name: str) -> tuple[Measured, ...]:
    return tuple(_read(folder / FILE).get(name, []))


def _read(path: Path) -> dict[str, list[Measured]]:
    try:
        return TIMES.validate_json(json.dumps(read_json(path, optional=True)), strict=True)
    except (UserError, ValidationError):
        logger.warning("%s holds no times of kernels; `embedtrain doctor --tune` writes them", path)
        return {}


def _nearest(
    times: tuple[Measured, ...], operation: Operation, dtype: str, dim: int, scores: int
) -> Measured | None:
    """Return the measurement of the next larger dim, and of as many scores at most or else the fewest."""
    alike = [
        one for one in times if (one.operation, one.dtype) == (operation, dtype) and one.dim >= dim
    ]
    if not alike:
        return None
    alike = [one for one in alike if one.dim == min(other.dim for other in alike)]
    smaller = [one for one in alike if one.scores <= scores]
    return (
        max(smaller, key=lambda one: one.scores)
        if smaller
        else min(alike, key=lambda one: one.scores)
    )


def _architecture(device: torch.device) -> int | None:
    try:
        availability = import_module("embedtrain_kernels.availability")
    except ImportError:
        return None
    found: int | None = availability.architecture(device)
    return found
