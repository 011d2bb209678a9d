r"""Vectors as the numbers that few bits stand for, with a gradient that passes through the rounding.

With $u = \sqrt d\, x$, whose coordinates have the size 1 where x has length 1:

- ``binary``: $\mathrm{sign}(u) / \sqrt d$; zero counts as positive, as a bit does,
- ``ternary``: $-1, 0, 1$ times one number that gives length 1; 0 where $|u| \le 0.612$,
- ``int8``: $\mathrm{round}(127 x) / 127$, clipped to $\pm 1$: one step for all dimensions.

Each acts on a coordinate by itself, or on one vector, so that chunks and devices change nothing.

Source: straight-through estimators, Bengio et al. (2013), https://arxiv.org/abs/1308.3432; the levels of three steps,
Max (1960), are those of least squared error for Gaussian coordinates.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.types import Format

Through = Literal["clipped", "identity", "tanh"]
LARGEST_CODE = 127
"""Of ``int8``; -128 is not used, so that a vector and its negative have the same code but for the sign."""
DEAD_ZONE = 0.612
"""Coordinates of a Gaussian of spread 1 that ``ternary`` takes for 0."""
CLIP = {"binary": 1.5, "ternary": 1.5}
"""Beyond it (of u) ``clipped`` passes no gradient: 87 % of a Gaussian's coordinates lie within. Ours."""
TYPICAL_COSINE: dict[Format, float] = {"int8": 1.0, "binary": 0.7979, "ternary": 0.8999}
"""Cosine of a vector of Gaussian coordinates with what its codes stand for: scores shrink by it."""


def straight_through(
    vectors: Float[Tensor, "texts dim"], kind: Format, through: Through = "clipped"
) -> Float[Tensor, "texts dim"]:
    """Return what the codes of vectors of length 1 stand for; see above.

    Args:
        vectors: One per text or token.
        kind: What is stored of a number.
        through: The gradient: that of the vectors as they were (``identity``), the same but for coordinates that
            are large already (``clipped``), or that of a tanh of slope 3 (``tanh``; ``binary`` only).
    """
    if kind == "binary" and through == "tanh":
        return straight_through_sign(vectors)
    root = 1.0 if kind == "int8" else vectors.shape[1] ** 0.5
    passed = vectors
    if through == "clipped":
        inside = (vectors.detach() * root).abs() <= CLIP.get(kind, 1.0)
        passed = vectors * inside
    result: Tensor = passed + (_values(vectors.detach(), kind) - passed).detach()
    return result


def _values(vectors: Float[Tensor, "texts dim"], kind: Format) -> Float[Tensor, "texts dim"]:
    values: Tensor
    if kind == "int8":
        codes = (LARGEST_CODE * vectors).round().clamp(-LARGEST_CODE, LARGEST_CODE)
        values = codes / LARGEST_CODE
        return values
    root = math.sqrt(vectors.shape[1])
    values = torch.where(vectors >= 0, 1.0, -1.0).to(vectors.dtype)
    if kind == "binary":
        return values / root
    values = values * (vectors.abs() * root > DEAD_ZONE)
    return values / values.abs().sum(1, keepdim=True).clamp_min(1).sqrt()


def straight_through_sign(
    vectors: Float[Tensor, "texts dim"], slope: float = 3.0
) -> Float[Tensor, "texts dim"]:
    r"""Return $\mathrm{sign}(x) / \sqrt d$ with the gradient of $\tanh(\beta \sqrt d\, x) / \sqrt d$.

    Zero counts as positive, as a bit does. Vectors have length 1 afterwards; :math:`\sqrt d\, x` has
    coordinates of size 1 where x is normalised, which is what the slope refers to.

    Source: the sign with a straight-through tanh is that of binary token representations (BTR, Cao et
    al., ICLR 2024); the scaling is ours. The slope is fixed; the reader of the paper and the
    distillation within it are not here.
    """
    root = vectors.shape[1] ** 0.5
    soft = torch.tanh(slope * root * vectors) / root
    through: Tensor = soft + (_values(vectors, "binary") - soft).detach()
    return through
