"""A dictionary over dense vectors: which of its entries make a vector up, and the vector that a few of them make."""

from jaxtyping import Float
from torch import Tensor

from embedtrain.ops.largest_entries import keep_largest


def activations(
    vectors: Float[Tensor, "texts width"],
    dictionary: Float[Tensor, "entries width"],
    input_bias: Float[Tensor, " width"],
    code_bias: Float[Tensor, " entries"],
) -> Float[Tensor, "texts entries"]:
    r"""Return how much of each entry a vector has, before any is dropped: $W (x - b_{in}) + b_{code}$."""
    return (vectors - input_bias) @ dictionary.T + code_bias


def code_of(found: Float[Tensor, "texts entries"], kept: int) -> Float[Tensor, "texts entries"]:
    r"""Return $\mathrm{ReLU}(\mathrm{top}_k(a))$: the largest, and fewer of them where fewer are above 0."""
    return keep_largest(found, kept).relu()
