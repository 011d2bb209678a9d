"""How well adapted vectors rank, beside vectors that nothing was trained for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
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
