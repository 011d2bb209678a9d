"""What scores a query's numbers with a document's vector where no inner product does."""

from abc import ABC
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.packed import Movable


@dataclass(frozen=True)
class Interaction(Movable, ABC):
    """A way to score pairs; :mod:`embedtrain.ops.interaction` computes each of them."""

    def total(self) -> Float[Tensor, ""]:
        """Return the sum of all weights; 0 where what scores is part of each query."""
        values = [getattr(self, field.name) for field in fields(self)]
        sums = [value.sum() for value in values if isinstance(value, Tensor)]
        return torch.stack(sums).sum() if sums else torch.zeros(())


@dataclass(frozen=True)
class JointNetwork(Interaction):
    """Weights of a network that looks at two vectors together (D2LLM)."""

    hidden: Float[Tensor, "hidden both_dims"]
    hidden_bias: Float[Tensor, " hidden"]
    retrieval: Float[Tensor, "features hidden"]
    retrieval_bias: Float[Tensor, " features"]
    similarity: Float[Tensor, "features hidden"]
    similarity_bias: Float[Tensor, " features"]
    output: Float[Tensor, " features"]
    shortlist: int | None = None
    """Documents that inner products propose in a search; None scores all."""


@dataclass(frozen=True)
class ComparingNetwork(Interaction):
    """Weights of a network that looks at two vectors, their products and their differences (DSE)."""

    hidden: Float[Tensor, "hidden four_dims"]
    hidden_bias: Float[Tensor, " hidden"]
    output: Float[Tensor, " hidden"]
    output_bias: Float[Tensor, ""]
    shortlist: int | None = None
    """As of :class:`JointNetwork`."""


@dataclass(frozen=True)
class GraphSearch:
    """How the neighbours of good documents are followed instead of scoring all."""

    neighbours: int
    """Of each document, by the distance of vectors."""
    entries: int
    """Documents that a search begins with, the same for all queries."""
    expanded: int
    """Documents whose neighbours are scored, at each step."""
    max_steps: int


@dataclass(frozen=True)
class QueryNetwork(Interaction):
    """Each query's numbers are the weights of a network of its own, which reads document vectors (Hypencoder).

    Laid end to end they are, for each layer, a matrix of ``dim`` x ``dim``, inputs in rows, and a bias; then the
    weights of the score.
    """

    dim: int
    num_layers: int
    graph: GraphSearch | None = None
    """None scores all documents of a search."""

    @property
    def num_weights(self) -> int:
        """Numbers of a query."""
        return self.num_layers * (self.dim + 1) * self.dim + self.dim


@dataclass(frozen=True)
class CodeAttention(Interaction):
    """Each query's numbers are several vectors laid end to end, to which a document's vector attends (Poly-encoder)."""

    num_codes: int
