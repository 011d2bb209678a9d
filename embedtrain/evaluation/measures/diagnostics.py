"""Figures that show how embeddings fill their space: alarms for a collapse, never a reason to choose a model.

All of them detach, compute in float64 and return a scalar; embeddings that hold NaN or infinity give NaN,
so that a log survives what the loss will report anyway.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def mean_norm(embeddings: Float[Tensor, "texts dim"]) -> Float64[Tensor, ""]:
    """Average the Euclidean length of the embeddings."""
    norms: Tensor = torch.linalg.vector_norm(embeddings.detach().double(), dim=1)
    return norms.mean()


def effective_rank(embeddings: Float[Tensor, "texts dim"]) -> Float64[Tensor, ""]:
    r"""Count the directions that the embeddings use, each by its share.

    $$\exp(-\sum_k p_k \log p_k), \quad p_k = \sigma_k / \sum_j \sigma_j$$

    with the singular values of the embeddings as they are, not centred: N embeddings along m orthogonal
    directions in equal numbers give m, embeddings that are all the same give 1. It is at most
    ``min(texts, dim)``; below a tenth of ``dim`` over enough texts suspect a collapse. Shares of variances, which
    others take, would count fewer directions.

    Source: Roy and Vetterli (2007); Garrido et al. (2023), https://arxiv.org/abs/2210.02885 (RankMe).
    """
    values = embeddings.detach().double()
    is_finite = values.isfinite().all()
    singular = torch.linalg.svdvals(torch.where(is_finite, values, 0.0))
    share = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny)
    rank = torch.special.entr(share).sum().exp()
    return torch.where(is_finite, rank, math.nan)


def alignment(
    queries: Float[Tensor, "pairs dim"], positives: Float[Tensor, "pairs dim"]
) -> Float64[Tensor, ""]:
    """Average the squared distance of each query to its positive on the unit sphere; 0 is best.

    Source: Wang and Isola (2020), https://arxiv.org/abs/2005.10242.
    """
    return (_normalise(queries) - _normalise(positives)).square().sum(dim=1).mean()


def uniformity(embeddings: Float[Tensor, "texts dim"]) -> Float64[Tensor, ""]:
    r"""Measure how evenly embeddings cover the unit sphere; lower is more even, 0 is a collapse.

    $$\log \frac{1}{|\{i<j\}|} \sum_{i<j} \exp(-2 \lVert x_i - x_j \rVert^2)$$

    Needs two texts. Memory grows with the number of pairs: give it a few thousand texts at most.

    Source: Wang and Isola (2020), https://arxiv.org/abs/2005.10242.
    """
    distances = torch.pdist(_normalise(embeddings))
    return torch.logsumexp(-2 * distances.square(), dim=0) - math.log(distances.numel())


def mean_cosine(embeddings: Float[Tensor, "texts dim"]) -> Float64[Tensor, ""]:
    """Average the cosine over all pairs of distinct texts: 0 is isotropic, 1 a narrow cone.

    Computed from the sum of the embeddings, without the pairs. Needs two texts.
    """
    units = _normalise(embeddings)
    num_texts = len(units)
    return (units.sum(dim=0).square().sum() - num_texts) / (num_texts * (num_texts - 1))


def isotropy_score(embeddings: Float[Tensor, "texts dim"]) -> Float64[Tensor, ""]:
    r"""Give the share of the dimensions that the variance uses evenly (IsoScore): 1 is all, 0 is one.

    With the variances $\lambda$ along the principal axes, $\hat\lambda = \sqrt{d} \lambda / \lVert\lambda\rVert$,
    $\delta = \lVert\hat\lambda - 1\rVert / \sqrt{2 (d - \sqrt d)}$, it is
    $((d - \delta^2 (d - \sqrt d))^2 - d) / (d (d - 1))$: variance along m of d axes gives (m-1)/(d-1). It is
    blind to the mean, which :func:`mean_cosine` sees. Needs two dimensions and many more texts than
    dimensions; no variance gives 0.

    Source: Rudman et al. (2022), https://arxiv.org/abs/2108.07344.
    """
    values = embeddings.detach().double()
    if not values.isfinite().all():
        return values.new_tensor(math.nan)
    variances: Tensor = torch.linalg.svdvals(values - values.mean(dim=0)).square()
    dim = values.shape[1]
    if len(variances) < dim:
        variances = torch.nn.functional.pad(variances, (0, dim - len(variances)))
    if variances.sum() == 0:
        return variances.new_tensor(0.0)
    evenness: Tensor = math.sqrt(dim) * variances / torch.linalg.vector_norm(variances)
    spread = dim - math.sqrt(dim)
    defect = (evenness - 1).square().sum() / (2 * spread)
    return ((dim - defect * spread).square() - dim) / (dim * (dim - 1))


def partition_ratio(embeddings: Float[Tensor, "texts dim"]) -> Float64[Tensor, ""]:
    r"""Compare how much mass the embeddings have in their principal directions: 1 is isotropic, near 0 a cone.

    $$\min_c Z(c) / \max_c Z(c), \quad Z(c) = \sum_x \exp \langle c, x \rangle$$

    over the eigenvectors $\pm c$ of $X^\top X$, of embeddings on the unit sphere.

    Source: Mu and Viswanath (2018), https://arxiv.org/abs/1702.01417.
    """
    units = _normalise(embeddings)
    if not units.isfinite().all():
        return units.new_tensor(math.nan)
    directions = torch.linalg.eigh(units.T @ units).eigenvectors
    projected = units @ directions
    masses = torch.cat([projected.logsumexp(dim=0), (-projected).logsumexp(dim=0)])
    ratio: Tensor = (masses.min() - masses.max()).exp()
    return ratio


def _normalise(embeddings: Float[Tensor, "texts dim"]) -> Float64[Tensor, "texts dim"]:
    units: Tensor = torch.nn.functional.normalize(embeddings.detach().double(), dim=1)
    return units
