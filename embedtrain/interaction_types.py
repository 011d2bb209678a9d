"""The weights of a network that scores a query and a document together."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.packed import Movable


@dataclass(frozen=True)
class Interaction(Movable):
    """Weights of a network that scores two vectors together; :mod:`embedtrain.ops.interaction` defines it."""

    hidden: Float[Tensor, "hidden both_dims"]
    hidden_bias: Float[Tensor, " hidden"]
    retrieval: Float[Tensor, "features hidden"]
    retrieval_bias: Float[Tensor, " features"]
    similarity: Float[Tensor, "features hidden"]
    similarity_bias: Float[Tensor, " features"]
    output: Float[Tensor, " features"]
    shortlist: int | None = None
    """Documents that inner products propose in a search; None scores all."""

    def total(self) -> Float[Tensor, ""]:
        """Return the sum of all weights."""
        values = [getattr(self, field.name) for field in fields(self)]
        return torch.stack([value.sum() for value in values if isinstance(value, Tensor)]).sum()
