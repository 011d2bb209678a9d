"""What a model says of a batch beside its vectors: the dense vectors that codes stand for, words of definitions."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.packed import Movable


@dataclass(frozen=True)
class SparseCode(Movable):
    """The dense vectors of a batch that codes stand for, and the dictionary; :mod:`embedtrain.ops.sparse_code` defines it.

    Where several ranks train, the vectors are those of all of them.
    """

    query: Float[Tensor, "queries width"]
    document: Float[Tensor, "documents width"]
    dictionary: Float[Tensor, "entries width"]
    input_bias: Float[Tensor, " width"]
    code_bias: Float[Tensor, " entries"]
    idle_steps: Int64[Tensor, " entries"]
    """Optimizer steps since each entry was last in any code."""
    kept: int
    """Entries that a text keeps."""


@dataclass(frozen=True)
class WordPrediction(Movable):
    """What the cross-entropy of words over a vocabulary is made of, for this rank's queries."""

    hidden: Float[Tensor, "queries width"]
    """What is multiplied by ``weight``."""
    weight: Float[Tensor, "vocabulary width"]
    bias: Float[Tensor, " vocabulary"] | None
    words: Int64[Tensor, " queries"]
    """The entry of the vocabulary that each query defines; -100 for none."""
