"""Vectors of earlier steps, as an objective gets them; :mod:`embedtrain.training.memory_bank` keeps them."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.packed import Movable


@dataclass(frozen=True)
class Bank(Movable):
    """Further candidates, without gradient, and the ids of their texts."""

    vectors: Float[Tensor, "entries dim"]
    ids: Int64[Tensor, " entries"]
