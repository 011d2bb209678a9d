"""Turn a model's vectors to their principal components, or centre and scale them: a layer behind the pooling."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.models.backbone.files import linear_layer
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.dense.encoder import DenseEncoder


def principal_axes(
    vectors: Float[Tensor, "texts dim"],
) -> tuple[Float64[Tensor, "dim dim"], Float64[Tensor, " dim"]]:
    """Return the principal axes of vectors about 0, and the share of their squared length along each.

    About 0 and not about the mean: a turn then keeps every inner product, and the first k coordinates are the
    best k for the matrix of inner products of these texts (Eckart and Young, 1936).

    Returns:
        Orthonormal axes in rows, and shares that sum to 1; the largest share first.
    """
    double = vectors.double()
    values, axes = torch.linalg.eigh(double.T @ double)
    values = values.clamp(min=0).flip(0)
    return axes.flip(1).T.contiguous(), values / values.sum()


def check_rotatable(model: DenseEncoder) -> None:
    """Refuse models whose vectors are not one plain vector per text, or were cut.

    Raises:
        UserError: With what to name instead.
    """
    if not model.is_portable or isinstance(model.backbone, WordTable) or model.exits is not None:
        raise UserError(
            "MODEL",
            "has no single plain vector to turn: exits, words, gates and tables of words have none",
            cure="Name a plain dense model",
        )
    if model.truncate_dim is not None:
        raise UserError(
            "MODEL", "was cut already", got=model.truncate_dim, cure="Name the whole model"
        )


def rotate_encoder(model: DenseEncoder, axes: Float[Tensor, "dim dim"]) -> None:
    """Put a rotation behind a dense encoder, as its projection or multiplied into the one it has."""
    check_rotatable(model)
    put_behind(model, axes.double().cpu())


def standardize_encoder(model: DenseEncoder, vectors: Float[Tensor, "texts dim"]) -> None:
    r"""Centre and scale each dimension, before vectors are normalised: $e' = (e - \mu) / \sigma$ of ``vectors``.

    A dimension in which all are equal is centred alone.
    """
    check_rotatable(model)
    double = vectors.double().cpu()
    mean, spread = double.mean(0), double.std(0, correction=0)
    scale = 1 / spread.where(spread > 0, torch.ones_like(spread))
    put_behind(model, scale.diag(), -mean * scale)


def put_behind(
    model: DenseEncoder,
    turn: Float64[Tensor, "dim dim"],
    shift: Float64[Tensor, " dim"] | None = None,
) -> None:
    """Put an affine map behind a dense encoder, as its projection or multiplied into the one it has."""
    old = model.projection
    weight = turn if old is None else turn @ old.weight.detach().cpu().double()
    bias = None if old is None or old.bias is None else turn @ old.bias.detach().cpu().double()
    if shift is not None:
        bias = shift if bias is None else bias + shift
    model.projection = linear_layer(weight, bias).float().to(model.device)
