"""Turn a model's vectors to their principal components, or centre and scale them: a layer behind the pooling."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.models.backbone.files import linear_layer, refuse_tanh
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


ROUNDS = 50
"""Of :func:`binary_axes`, after which signs hardly change."""


def binary_axes(
    vectors: Float[Tensor, "texts dim"], dim: int | None = None, rounds: int = ROUNDS
) -> Float64[Tensor, "kept dim"]:
    r"""Return orthonormal axes along which vectors lie near their signs.

    Of the first ``dim`` principal axes, turned by R so that $\lVert B - X R \rVert$ falls: signs $B$ of the turned
    vectors and the best turn to these signs take turns. About 0 and not about the mean, so that a whole turn keeps every
    inner product.

    Source: iterative quantisation, Gong and Lazebnik (2011), https://doi.org/10.1109/CVPR.2011.5995432, which centres.
    """
    first = principal_axes(vectors)[0][:dim]
    short = vectors.double() @ first.T
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(
        torch.randn(len(first), len(first), generator=generator, dtype=torch.float64)
    )[0]
    for _ in range(rounds):
        signs = torch.where(short @ turn >= 0, 1.0, -1.0).double()
        left, _, right = torch.linalg.svd(short.T @ signs)
        turn = left @ right
    axes: Tensor = turn.T @ first
    return axes


def sign_cosine(vectors: Float[Tensor, "texts dim"]) -> float:
    """Return the mean cosine of vectors with their signs, 0.80 where coordinates are Gaussian."""
    lengths = vectors.norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
    return float((vectors.abs().sum(1) / lengths).mean()) / math.sqrt(vectors.shape[1])


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
    refuse_tanh(model.projection, "MODEL")
    if model.truncate_dim is not None:
        raise UserError(
            "MODEL", "was cut already", got=model.truncate_dim, cure="Name the whole model"
        )


def rotate_encoder(model: DenseEncoder, axes: Float[Tensor, "kept dim"]) -> None:
    """Put a rotation, or its first axes, behind a dense encoder, as its projection or multiplied into the one it has."""
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
    turn: Float64[Tensor, "kept dim"],
    shift: Float64[Tensor, " kept"] | None = None,
) -> None:
    """Put an affine map behind a dense encoder, as its projection or multiplied into the one it has."""
    old = model.projection
    weight = turn if old is None else turn @ old.weight.detach().cpu().double()
    bias = None if old is None or old.bias is None else turn @ old.bias.detach().cpu().double()
    if shift is not None:
        bias = shift if bias is None else bias + shift
    model.projection = linear_layer(weight, bias).float().to(model.device)
