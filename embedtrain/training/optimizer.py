"""AdamW and its learning rate."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from embedtrain.models.sparse.query_weights import QueryWeights
from embedtrain.training.settings import TrainerConfig


def build_optimizer(model: nn.Module, config: TrainerConfig) -> torch.optim.AdamW:
    """Return AdamW that decays matrices only: norms, biases and temperatures are vectors.

    Weights of queries that no model encodes have a learning rate of their own.
    """
    looked_up = [part for part in model.modules() if isinstance(part, QueryWeights)]
    apart = {id(part.weight): part for part in looked_up if part.learning_rate is not None}
    every = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trained = [parameter for parameter in every if id(parameter) not in apart]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups += [
        {"params": [one], "weight_decay": 0.0, "lr": apart[id(one)].learning_rate}
        for one in every
        if id(one) in apart
    ]
    # Fused, it is one pass over the weights instead of a dozen.
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def build_schedule(
    optimizer: torch.optim.Optimizer, config: TrainerConfig, num_steps: int
) -> LambdaLR:
    """Return the learning-rate schedule, to be advanced once per optimizer step."""
    return LambdaLR(optimizer, learning_rate_factor(config, num_steps))


def learning_rate_factor(config: TrainerConfig, num_steps: int) -> Callable[[int], float]:
    """Return the share of the peak learning rate at each step."""
    warmup = math.ceil(config.warmup_ratio * num_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, num_steps - warmup))
        if config.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1 - done if config.schedule == "linear" else 1.0

    return factor
