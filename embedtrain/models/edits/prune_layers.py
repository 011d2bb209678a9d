"""Choose the layers whose loss moves vectors the least: one after the other goes, the best to lose first."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embedtrain.errors import UserError
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.exits import keep_layers


@dataclass(frozen=True)
class Round:
    """One layer fewer."""

    kept: tuple[int, ...]
    """Layers that are left, counted from 1 in the model that was begun with."""
    distance: float
    """What the vectors of these lie from those of all layers."""
    worst: float
    """The same without the layer that is missed the most."""

    @property
    def line(self) -> str:
        """What is said of it."""
        kept = ", ".join(map(str, self.kept))
        return f"layers {kept}: distance {self.distance:.3f}; the worst choice, {self.worst:.3f}"


def check_layers(model: DenseEncoder, keep: int | None) -> None:
    """Refuse a model that has no layers to lose, or not more than ``keep``; None keeps all.

    Raises:
        UserError: With what to name instead.
    """
    if not model.is_portable or model.exits is not None or isinstance(model.backbone, WordTable):
        problem = "has no plain stack of layers under one plain vector"
        raise UserError("MODEL", problem, cure="Name a plain dense model")
    if keep is not None and not 1 <= keep < model.num_layers:
        problem = f"is not between 1 and {model.num_layers - 1}"
        raise UserError("--keep", problem, got=keep, cure=f"It has {model.num_layers} layers")


def without_layers(model: DenseEncoder, kept: tuple[int, ...]) -> DenseEncoder:
    """Return a copy of the model that has only these of its layers, counted from 1."""
    smaller = copy.deepcopy(model)
    keep_layers(smaller.backbone, [layer - 1 for layer in kept])
    return smaller


def drop_layers(
    model: DenseEncoder, keep: int, distance: Callable[[DenseEncoder], float]
) -> Iterator[Round]:
    """Yield the layers that are left after each round, until ``keep`` are; ties keep the earlier layer's place.

    Of L layers that is about L² / 2 calls of ``distance``, each with a copy of what is left.
    """
    kept = tuple(range(1, model.num_layers + 1))
    while len(kept) > keep:
        tried = []
        for gone in kept:
            rest = tuple(layer for layer in kept if layer != gone)
            tried.append((distance(without_layers(model, rest)), rest))
        best, kept = min(tried)
        yield Round(kept, best, max(tried)[0])
