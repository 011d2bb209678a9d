"""The losses of a Matryoshka-Adaptor: make prefixes of frozen vectors worth searching with."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from embedtrain.models.edits.adapters import VectorAdapter


def unsupervised_loss(
    adapter: VectorAdapter,
    vectors: Float[Tensor, "texts dim"],
    neighbours: Float[Tensor, "pairs dim"],
    is_other: Bool[Tensor, "texts neighbours"],
    *,
    dims: Sequence[int],
    pair_weight: float,
    residual_weight: float,
) -> Float[Tensor, ""]:
    r"""Return how much prefixes of adapted vectors change the similarities of the original ones.

    $$\mathcal{L} = \sum_m \overline{|c_{ij} - c'_{ij}(m)|}_{j \in \mathrm{knn}(i)} +
    \alpha\, \overline{|c_{ij} - c'_{ij}(m)|}_{j \ne i} + \beta\, \overline{|f(e_i)|}$$

    c is the cosine, $c'(m)$ that of the first m coordinates of $e + f(e)$, overlines are means in place of the
    source's sums, so that no weight depends on the size of a batch; sizes are averaged too.

    Source: Yoon et al. (2024), https://arxiv.org/abs/2407.20243.

    Args:
        adapter: f, with its residual connection.
        vectors: A batch of originals.
        neighbours: The nearest originals of each, one text after the other.
        is_other: False where a neighbour is the text itself.
        dims: m.
        pair_weight: alpha.
        residual_weight: beta.
    """
    own, near = F.normalize(vectors, dim=1), F.normalize(neighbours, dim=1)
    new_own, new_near = adapter(vectors), adapter(neighbours)
    count = is_other.shape[1]
    off_diagonal = ~torch.eye(len(own), dtype=torch.bool)
    of_neighbours = (own[:, None] * near.view(len(own), count, -1)).sum(2)
    of_pairs = own @ own.T
    losses = []
    for dim in dims:
        a = F.normalize(new_own[:, :dim], dim=1)
        b = F.normalize(new_near[:, :dim], dim=1).view(len(own), count, -1)
        top = (of_neighbours - (a[:, None] * b).sum(2)).abs()[is_other].mean()
        pairs = (of_pairs - a @ a.T).abs()[off_diagonal].mean()
        losses.append(top + pair_weight * pairs)
    size = adapter.residual(vectors).abs().mean()
    return torch.stack(losses).mean() + residual_weight * size


def ranking_loss(
    query: Float[Tensor, "pairs dim"],
    document: Float[Tensor, "pairs dim"],
    answers: Bool[Tensor, "pairs pairs"],
    *,
    dims: Sequence[int],
) -> Float[Tensor, ""]:
    r"""Return $\overline{\log(1 + e^{s_n - s_p})}$ over sizes, queries and documents n of the batch that do not answer."""
    losses = []
    for dim in dims:
        scores = F.normalize(query[:, :dim], dim=1) @ F.normalize(document[:, :dim], dim=1).T
        margins = F.softplus(scores - scores.diagonal()[:, None])
        losses.append(margins[~answers].mean() if (~answers).any() else scores.sum() * 0)
    return torch.stack(losses).mean()
