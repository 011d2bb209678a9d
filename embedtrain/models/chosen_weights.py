r"""The choice of what is trained, ``model.train`` with names, and how far each part of a model has moved.

To train a few layers and freeze the others is surgical fine-tuning: the layers near the input suit a shift of how
texts look, those near the output one of what is asked. A part of weights $w$ that began at $w_0$ has moved by
$\lVert w - w_0 \rVert / \lVert w_0 \rVert$.

Source: Lee et al. (2022), https://arxiv.org/abs/2210.11466.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.biases import is_bias
from embedtrain.models.exits import layer_stacks
from embedtrain.models.text_model import TextModel
from embedtrain.section import Section

BEHIND = "pooling"
"""What the part behind the backbone is called: projection, pooling with weights, heads."""
LAYERS = re.compile(r"layers\.(\d+)(?:-(\d+))?(?:\.(.+))?")
TEMPERATURE = "log_temperature"
"""Always trained: it is there only where a recipe asks for it to be learned."""


class Movement(Section):
    """How far training moved a part of a model."""

    part: str
    """``layers.3``, ``pooling``, or the name of what stands before the layers."""
    num_weights: int
    num_trained: int
    moved: float
    """The length of the change divided by the length of the weights at the start; 1 where these were 0."""


def train_only(model: TextModel, patterns: Sequence[str]) -> None:
    """Freeze all weights but those that ``patterns`` name, in place; what is frozen already stays so.

    ``layers.9-11`` are layers of the backbone, counted from 0 as the names of weights count them, and
    ``layers.9-11.attention`` parts of them; ``biases`` those of the backbone; ``pooling`` all that stands behind the
    backbone; anything else is a part of a weight's name between dots, such as ``embeddings`` or ``LayerNorm``.

    Raises:
        UserError: If a pattern names no weight that could be trained.
    """
    parts = weight_parts(model)
    found = {
        id(parameter)
        for pattern in patterns
        for parameter in _named(pattern, parts, _trainable(model))
    }
    for name, parameter in model.named_parameters():
        if name != TEMPERATURE and id(parameter) not in found:
            parameter.requires_grad_(False)


def weight_parts(model: TextModel) -> dict[int, str]:
    """Return the part of the model that each parameter belongs to, by the parameter's id."""
    parts = {id(parameter): BEHIND for parameter in model.parameters()}
    for name, parameter in model.backbone.named_parameters():
        parts[id(parameter)] = name.partition(".")[0]
    for owner, name in layer_stacks(model.backbone):
        for number, layer in enumerate(getattr(owner, name)):
            parts |= {id(parameter): f"layers.{number}" for parameter in layer.parameters()}
    return parts


def _trainable(model: TextModel) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters under all of their names: a matrix may be the backbone's and a head's."""
    every = model.named_parameters(remove_duplicate=False)
    return [(name, one) for name, one in every if one.requires_grad and name != TEMPERATURE]


def _named(
    pattern: str, parts: dict[int, str], trainable: list[tuple[str, nn.Parameter]]
) -> list[nn.Parameter]:
    """Return what a pattern names."""
    layers = LAYERS.fullmatch(pattern)
    wanted, piece = None, pattern
    if layers is not None:
        first, last, piece = int(layers[1]), int(layers[2] or layers[1]), layers[3] or ""
        wanted = {f"layers.{number}" for number in range(first, last + 1)}
    elif pattern == BEHIND:
        wanted, piece = {BEHIND}, ""
    biases = pattern == "biases"
    found = [
        parameter
        for name, parameter in trainable
        if (wanted is None or parts[id(parameter)] in wanted)
        and ((biases and is_bias(name)) or not piece or f".{piece}." in f".{name}.")
        and not (biases and parts[id(parameter)] == BEHIND)
    ]
    missing = set() if wanted is None else wanted - {parts[id(one)] for one in found}
    if missing or not found:
        known = list(dict.fromkeys(parts[id(one)] for _, one in trainable))
        raise UserError(
            "model.train",
            "names no weight of this model",
            got=pattern,
            cure=f"It has {', '.join(known)}; a part of a weight's name between dots will do as well",
        )
    return found


@torch.no_grad()
def movements(start: TextModel, trained: TextModel, names: Iterable[str]) -> list[Movement]:
    """Return how far each part has moved, from the input on; ``names`` are the weights that were trained."""
    asked, parts = set(names), weight_parts(trained)
    before = dict(start.named_parameters())
    found: dict[str, list[tuple[Tensor, Tensor, bool]]] = {}
    for name, after in trained.named_parameters():
        found.setdefault(parts[id(after)], []).append((before[name], after, name in asked))
    ordered = sorted(found, key=lambda part: part == BEHIND)  # a model's own names come first
    return [Movement.model_validate(_movement(part, found[part])) for part in ordered]


def _movement(part: str, rows: list[tuple[Tensor, Tensor, bool]]) -> dict[str, str | int | float]:
    def length(values: Iterator[Tensor]) -> float:
        return math.sqrt(sum(value.double().square().sum().item() for value in values))

    change = length(after - before.to(after.device) for before, after, _ in rows)
    start = length(before for before, _, _ in rows)
    return {
        "part": part,
        "num_weights": sum(after.numel() for _, after, _ in rows),
        "num_trained": sum(after.numel() for _, after, asked in rows if asked),
        "moved": change / start if start else float(change > 0),
    }
