"""Whole copies of layers, as adapters whose product of factors can be any matrix.

Of an adapter $B A$ the smaller factor is the unit matrix and is not trained; the other, 0 at the start, is what the copy
has moved by. Whatever saves, merges and chooses adapters treats such copies like all others.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer


def full_ranks(backbone: nn.Module, layers: Sequence[str]) -> dict[str, int]:
    """Return the rank of each linear layer from which on the product of two factors can be any matrix."""
    found: dict[str, int] = {}
    for name in layers:
        layer = backbone.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        found[name] = min(layer.in_features, layer.out_features)
    return found


@torch.no_grad()
def begin_as_copies(layers: Iterable["LoraLayer"]) -> None:
    """Make one factor of each adapter the unit matrix for good, and the other 0: all begin as what they are copies of."""
    for layer in layers:
        for name in layer.lora_A:
            factors = layer.lora_A[name].weight, layer.lora_B[name].weight
            unit, moved = sorted(factors, key=lambda one: one.shape[0] != one.shape[1])
            nn.init.eye_(unit)
            unit.requires_grad_(False)
            nn.init.zeros_(moved)
