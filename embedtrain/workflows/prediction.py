"""What training would take on a device that is not here: arithmetic on its data sheet, no measurement.

A step is as long as its matrix products, the traffic of what lies between them and the optimizer's take one after
another, or as the host takes to launch them if that is longer. Kernels that join what lies between the products
make a step faster than this; messages between devices and waiting for data make it slower.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from embedtrain.training.devices import Device, Product
from embedtrain.training.flops import StepWork
from embedtrain.training.planner import Plan, describe
from embedtrain.training.settings import TrainerConfig
from embedtrain.units import show_seconds

REACHED = 0.65
"""Share of its peak that a device reaches in large matrix products; assumed."""
TRAFFIC = 380
"""Bytes that a layer reads and writes for each token and each of the width's coordinates, forward and backward:
counted on BERT's operations under bf16 autocast, with an inner width of four times the width."""
OPTIMIZER_BYTES = 28
"""Bytes that AdamW reads and writes for each weight: weight, gradient and two moments in float32."""
LAUNCHES, LAYER_LAUNCHES = 278, 75
"""Kernels of a step, and of each layer in it; counted on BERT, one chunk."""
LAUNCH_SECONDS = 8e-6
"""The host's time for one; assumed."""


@dataclass(frozen=True)
class Prediction:
    """Training on ``num_ranks`` devices of a kind, as computed."""

    device: Device
    product: Product
    num_ranks: int
    seconds_per_step: float
    tokens_per_second: float
    """Of all devices."""
    mfu: float
    plan: Plan
    """Memory of one device."""


def predict(
    device: Device,
    work: StepWork,
    model: nn.Module,
    backbone: Any,  # noqa: ANN401 - transformers is untyped
    plan: Plan,
    config: TrainerConfig,
) -> Prediction | None:
    """Predict a step whose micro-batches take ``work`` on each device; None where nothing is known of it."""
    if work.computed is None or work.operations is None:
        return None
    settings = backbone.config
    product: Product = "bf16" if config.precision == "bf16" else "fp32"
    matrix = work.computed / (REACHED * device.peak(product))
    moved = TRAFFIC * settings.hidden_size * settings.num_hidden_layers * work.computed_tokens
    chunks = max(1, round(work.computed_tokens / plan.chunk_tokens))
    passes = chunks * (1 + float(config.rematerialize) / 3)
    launches = passes * (LAUNCHES + LAYER_LAUNCHES * settings.num_hidden_layers)
    micro_batch = max(matrix + moved / (1e12 * device.bandwidth), launches * LAUNCH_SECONDS)
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    step = config.accumulate * micro_batch + OPTIMIZER_BYTES * trained / (1e12 * device.bandwidth)
    return Prediction(
        device,
        product,
        config.num_ranks,
        seconds_per_step=step,
        tokens_per_second=config.num_ranks * config.accumulate * work.tokens / step,
        mfu=config.accumulate * work.operations / step / device.peak(product),
        plan=plan,
    )


def describe_prediction(found: Prediction, num_steps: int) -> str:
    """Say what was computed, and that it was."""
    devices = f"{found.num_ranks} x {found.device.key}" if found.num_ranks > 1 else found.device.key
    whole = show_seconds(num_steps * found.seconds_per_step)
    return (
        f"On {devices} in {found.product} (computed from its data sheet, not measured): about "
        f"{found.tokens_per_second:,.0f} tokens/s, {show_seconds(found.seconds_per_step)} a step, {whole} in all, "
        f"MFU {found.mfu:.0%}. {describe(found.plan)}"
    )
