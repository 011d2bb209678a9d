"""Several low-rank adapters in one backbone, of which one acts at a time.

peft's own switch freezes the adapters that do not act. Here all stay as trainable as they are, so that an optimizer and the
ranks of a run always see the same parameters; those that had no part in a step are left out of it
(:mod:`embedtrain.training.acting_adapters`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.models.backbone.lora import (
    LoraConfig,
    adapted_layers,
    adapter_weights,
    merge_lora,
    save_adapter,
)

FOLDER = "adapters"
"""Where a model folder keeps them, each in a folder of its name and in peft's files."""


class NamedAdapters:
    """A way to choose which adapter of a backbone acts. It holds no weights of its own: these are the backbone's."""

    def __init__(self, backbone: Any, config: LoraConfig) -> None:  # noqa: ANN401 - transformers is untyped
        self.backbone = backbone
        self.config = config
        self.names: Sequence[str] = config.names
        self._layers: list[Any] = [layer for _, layer in adapted_layers(backbone)]

    def use(self, name: str) -> None:
        """Let one adapter act from now on."""
        for layer in self._layers:
            layer._active_adapter = [name]  # noqa: SLF001 - set_adapter of peft 0.21 freezes the others

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Return the weights of an adapter."""
        return list(adapter_weights(dict(self.backbone.named_parameters()), name).values())

    def total(self) -> Float[Tensor, ""]:
        """Return the sum of the weights of all adapters."""
        sums = [one.sum() for name in self.names for one in self.parameters_of(name)]
        return torch.stack(sums).sum()

    def save(self, folder: Path, base: str) -> None:
        """Write each adapter into a folder of its name, as peft reads it; ``base`` is what they are for."""
        for name in self.names:
            save_adapter(self.backbone, self.config, base, folder / name, name)

    def merge(self, name: str) -> None:
        """Fold one adapter into plain layers, in place; the others are gone."""
        self.use(name)
        merge_lora(self.backbone)


def stored_in(folder: Path, stated: LoraConfig) -> LoraConfig:
    """Return how the adapters of a model folder are read: they lie there, whatever it says of where they began."""
    return stated.model_copy(update={"start": str(folder / FOLDER), "frozen": "float32"})


def save_plain(backbone: Any, folder: Path) -> None:  # noqa: ANN401 - transformers is untyped
    """Write a backbone without its adapters."""
    weights = {
        name.replace(".base_layer.", "."): value.float()
        for name, value in backbone.state_dict().items()
        if ".lora_" not in name
    }
    backbone.save_pretrained(folder, state_dict=weights)
