"""Layers of a backbone whose states are embeddings too: to train them, and to cut a model off there."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.families import configs_of, hand_on_positions, keep_in_config
from embedtrain.models.backbone.files import read_projection, write_projection

FINAL_NORMS = ("final_norm", "norm", "ln_f", "final_layer_norm")
"""What backbones call a norm that follows the last layer only (ModernBERT, Llama, GPT-2, OPT)."""


def exit_states(
    backbone: Any,  # noqa: ANN401 - transformers is untyped
    output: Any,  # noqa: ANN401
    layers: tuple[int, ...],
) -> Float[Tensor, "texts tokens width"]:
    """Return the states after each of ``layers`` and after the last layer, side by side.

    They are those of a backbone that has no further layers: a norm that follows the last layer follows
    each of them.
    """
    last: Tensor = output.last_hidden_state
    if not layers:
        return last
    norm = final_norm(backbone)
    states = [output.hidden_states[layer] for layer in layers]
    return torch.cat([*(state if norm is None else norm(state) for state in states), last], dim=-1)


def check_exits(layers: Sequence[int], total: int) -> None:
    """Refuse an exit that is the last layer, or none.

    Raises:
        UserError: Naming it.
    """
    if layers and layers[-1] >= total:
        raise UserError(
            "model.exits",
            f"must lie below the last of the {total} layers",
            got=layers[-1],
            cure="The last layer is always trained: leave it out",
        )


def final_norm(backbone: Any) -> nn.Module | None:  # noqa: ANN401 - transformers is untyped
    """Return the norm behind the last layer; None where each layer ends with its own."""
    beside = {
        name: child for owner, _ in layer_stacks(backbone) for name, child in owner.named_children()
    }
    return next((beside[name] for name in FINAL_NORMS if name in beside), None)


def keep_layers(backbone: Any, kept: Sequence[int]) -> None:  # noqa: ANN401 - transformers is untyped
    """Drop all layers of a backbone but those of the places ``kept``, which are counted from 0."""
    for owner, name in layer_stacks(backbone):
        layers = getattr(owner, name)
        hand_on_positions(layers[0], layers[kept[0]])
        setattr(owner, name, nn.ModuleList(layers[place] for place in kept))
    for config in configs_of(backbone.config):
        keep_in_config(config, kept)


def layer_stacks(backbone: Any) -> list[tuple[nn.Module, str]]:  # noqa: ANN401 - transformers is untyped
    """Return the modules that hold the backbone's layers, and under which names; lists within a layer are none."""
    total = backbone.config.num_hidden_layers

    def within(owner: nn.Module) -> Iterator[tuple[nn.Module, str]]:
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                yield owner, name
            else:
                yield from within(child)

    return list(within(backbone))


class Exits(nn.Module):
    """Which layers are trained as embeddings besides the last, and the projection of each.

    Args:
        layers: Counted from 1, without the last.
        heads: One linear layer per exit; empty where exits share the model's own.
    """

    def __init__(self, layers: tuple[int, ...], heads: tuple[nn.Linear, ...] = ()) -> None:
        super().__init__()
        self.layers = layers
        self.heads = nn.ModuleDict(
            {str(layer): head for layer, head in zip(layers, heads, strict=bool(heads))}
        )

    def head(self, layer: int) -> nn.Linear | None:
        """Return the projection of its own that an exit has; None where it shares the model's."""
        return dict(self.heads.items()).get(str(layer))  # type: ignore[return-value]


EXIT_HEADS = "exit_heads"


def write_exit_heads(folder: Path, exits: Exits) -> None:
    """Write the projections of the exits that have one of their own."""
    for layer in exits.layers:
        if (head := exits.head(layer)) is not None:
            write_projection(folder / EXIT_HEADS / str(layer), head)


def read_exit_heads(folder: Path) -> dict[int, nn.Linear]:
    """Return the projections that a folder has, by layer; none for most folders."""
    places = sorted((folder / EXIT_HEADS).glob("[0-9]*"), key=lambda place: int(place.name))
    return {int(place.name): read_projection(place) for place in places}
