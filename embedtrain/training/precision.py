"""The precision of a run: what the recipe says, or what is faster where it runs."""

import time
from contextlib import AbstractContextManager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedtrain.models.backbone.loading import preferred_device
from embedtrain.precision import float32_products
from embedtrain.progress import console
from embedtrain.training.settings import TrainerConfig

SECONDS = 0.05
"""A measurement's length, in time of this thread: a busy machine takes turns of it that say nothing of a product."""
ROWS = 128
"""Tokens of the measured product: where bf16 is not computed by the CPU itself, one may take half a second."""
WIDEST = 1024
"""Wider layers gain no more, and would take longer to measure."""
CLEARLY = 1.25
"""One precision is called faster from this ratio on; below it is a tie, and float32 is taken."""


def choose_precision(config: TrainerConfig, model: nn.Module) -> TrainerConfig:
    """Return settings whose precision is no longer ``auto``, and say what was chosen.

    Where the recipe asks for bf16 and this CPU computes it more slowly than float32, that is said as well.
    """
    if config.precision == "fp32":
        return config
    device = next(model.parameters()).device
    ratio = bf16_speed(model, device)
    if config.precision == "bf16":
        if ratio * CLEARLY < 1 and device.type == "cpu":
            console.print(
                f"trainer.precision bf16: matrix products take {1 / ratio:.0f} times as long as in fp32 on this "
                "CPU; trainer.precision=fp32 is faster here"
            )
        return config
    chosen: Literal["bf16", "fp32"] = "bf16" if ratio > CLEARLY else "fp32"
    reason = (
        ""
        if device.type == "cuda"
        else f": bf16 products measured {ratio:.1f} times as fast as fp32"
    )
    console.print(f"trainer.precision auto is {chosen} here{reason}")
    return config.model_copy(update={"precision": chosen})


def products_of(config: TrainerConfig) -> AbstractContextManager[None]:
    """Return the context of a whole run: what stays float32 beside bf16 is multiplied in TF32 on a GPU.

    Under fp32 products are exact, whatever the process was set to.
    """
    rounding: Literal["tf32", "ieee"] = "tf32" if config.precision == "bf16" else "ieee"
    return float32_products(rounding, preferred_device(config.accelerator).type)


def bf16_speed(model: nn.Module, device: torch.device) -> float:
    """Return how many times as fast as in float32 a model's widest products are in bf16, casts included.

    A CPU is measured. A GPU is asked: it computes in bf16 (infinitely fast) or does not (0). A model without
    products does not care (1).
    """
    if device.type == "cuda":
        return float("inf") if torch.cuda.is_bf16_supported(including_emulation=False) else 0.0
    backbone = next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)
    if backbone is None:
        return 1.0
    width = int(backbone.config.hidden_size)
    inner = int(getattr(backbone.config, "intermediate_size", None) or 4 * width)
    weight = torch.ones(min(inner, WIDEST), min(width, WIDEST), requires_grad=True)
    best = {False: float("inf"), True: float("inf")}
    for bf16 in best:
        _seconds(weight, 1, bf16=bf16)  # pays for set-up
    end = time.thread_time() + SECONDS
    while best[True] == float("inf") or time.thread_time() < end:
        for bf16, fastest in best.items():  # in turn, so that a busy machine slows both
            best[bf16] = min(fastest, _seconds(weight, ROWS, bf16=bf16))
    return best[False] / best[True] if best[True] else 1.0  # a clock that is too coarse


def _seconds(weight: Tensor, num_rows: int, *, bf16: bool) -> float:
    """Time a linear layer forward and backward, of which this thread computes its part."""
    rows = torch.ones(num_rows, weight.shape[1], requires_grad=True)
    start = time.thread_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        F.linear(rows, weight).sum().backward()  # type: ignore[no-untyped-call]
    return time.thread_time() - start
