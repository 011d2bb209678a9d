"""How well adapted vectors rank, and the losses of a Matryoshka-Adaptor: prefixes worth searching with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from embedtrain.models.edits.adapters import VectorAdapter
from embedtrain.models.edits.rotate import principal_axes
from embedtrain.retrieval.dense.exact import search_exact
from embedtrain.types import Side

Vectors = Float[Tensor, "texts dim"]


@dataclass(frozen=True)
class AdapterData:
    """Normalised vectors and which document answers which query."""

    queries: Float32[Tensor, "queries dim"]
    documents: Float32[Tensor, "documents dim"]
    pairs: Int64[np.ndarray, "pairs 2"]
    """Rows of query and document."""


Adapters = dict[Side, VectorAdapter]


def adapted(adapters: Adapters, side: Side, vectors: Vectors) -> Vectors:
    """Return the vectors of one side as they are compared: transformed where it is adapted, normalised."""
    adapter = adapters.get(side)
    return F.normalize(vectors if adapter is None else adapter(vectors), dim=1)


@torch.no_grad()
def reciprocal_rank(
    data: AdapterData,
    adapters: Adapters,
    pairs: Int64[np.ndarray, "pairs 2"],
    dims: Sequence[int] = (),
) -> float:
    """Return the mean reciprocal rank at 10 of some queries over all documents, averaged over sizes."""
    answers: dict[int, set[int]] = {}
    for query, document in pairs.tolist():
        answers.setdefault(query, set()).add(document)
    rows = list(answers)
    queries = adapted(adapters, "query", data.queries[rows])
    documents = adapted(adapters, "document", data.documents)
    values = []
    for dim in dims or (queries.shape[1],):
        short = F.normalize(queries[:, :dim], dim=1).numpy()
        candidates = F.normalize(documents[:, :dim], dim=1).numpy()
        found = search_exact(short, candidates, min(10, len(candidates))).indices.tolist()
        for row, ranking in zip(rows, found, strict=True):
            hits = (1 / rank for rank, hit in enumerate(ranking, 1) if hit in answers[row])
            values.append(next(hits, 0.0))
    return float(np.mean(values))


@torch.no_grad()
def ranks_at_sizes(
    data: AdapterData,
    adapters: Adapters,
    pairs: Int64[np.ndarray, "pairs 2"],
    dims: Sequence[int],
) -> dict[str, float]:
    """Return reciprocal ranks at each size of the vectors cut, cut after a rotation, and adapted.

    The rotation is to the principal components of all vectors about 0, so that it keeps every inner product at
    the full size: what a Matryoshka-Adaptor has to beat.
    """
    dim = data.documents.shape[1]
    rotation = VectorAdapter(dim, "linear", dim, "identity")
    assert rotation.square is not None
    every = torch.cat([data.queries, data.documents])
    rotation.square.copy_(principal_axes(every)[0])
    arms: dict[str, Adapters] = {
        "cut": {},
        "principal_components": {"query": rotation, "document": rotation},
        "adapted": adapters,
    }
    return {
        f"held_out_mrr_at_10_dim_{size}_{arm}": reciprocal_rank(data, some, pairs, (size,))
        for size in dims
        for arm, some in arms.items()
    }


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
