"""What a model says of a batch whose vectors are codes of dense ones."""

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
