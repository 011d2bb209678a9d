"""KoLeo: vectors are to keep away from their nearest neighbour, so that they fill the sphere."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALL = 1e-8
"""Added to differences and distances: two equal vectors have a finite loss and gradient."""
ROWS_AT_ONCE = 1024


def koleo(
    vectors: Float[Tensor, "texts dim"], everyone: Float[Tensor, "all_texts dim"]
) -> Float[Tensor, ""]:
    r"""Return $-\frac{1}{N} \sum_i \log \lVert u_i - u_{n(i)} \rVert$, in the type of the vectors.

    $u$ are vectors divided by their norms and $n(i)$ is the row of ``everyone`` nearest to i by inner product, which is chosen
    without gradient; the distance has a gradient by both vectors. The estimator is Kozachenko and Leonenko's of the
    entropy. A lonely vector has no neighbour and costs 0.

    Args:
        vectors: Of this process.
        everyone: Those of all processes, own ones first and in the same order.

    Source: Sablayrolles et al. (2019), https://arxiv.org/abs/1806.03198.
    """
    if len(everyone) < 2:
        return vectors.sum() * 0
    units, candidates = F.normalize(vectors, dim=1), F.normalize(everyone, dim=1)
    with torch.no_grad():
        nearest = []
        for start in range(0, len(units), ROWS_AT_ONCE):
            scores = units[start : start + ROWS_AT_ONCE] @ candidates.T
            scores.diagonal(start).fill_(-torch.inf)
            nearest.append(scores.argmax(1))
    distances = (units - candidates[torch.cat(nearest)] + SMALL).norm(dim=1)
    spread: Tensor = (distances + SMALL).log().mean()
    return -spread
