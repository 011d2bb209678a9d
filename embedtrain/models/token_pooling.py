"""Token pooling: similar tokens of a document become one vector, so that the index shrinks.

Source: Clavié et al. (2024), https://arxiv.org/abs/2409.14683, hierarchical pooling.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from embedtrain.types import TokenEmbeddings

LINKAGE_TOKENS = 512
"""Tokens clustered together at most: the distances of n tokens take n^2 / 2 numbers."""


def pooling_labels(
    vectors: Float[np.ndarray, "tokens dim"], factor: int, *, num_protected: int = 1
) -> NDArray[np.int64]:
    """Assign each vector of one text to a cluster: Ward linkage over cosine distances.

    The first ``num_protected`` vectors stay alone. The rest, n of them, become ``max(n // factor, 1)``
    clusters at most. Labels count from 0 in the order of first appearance.
    """
    num_protected = min(num_protected, len(vectors))
    labels = [np.arange(num_protected)]
    total = num_protected
    for start in range(num_protected, len(vectors), LINKAGE_TOKENS):
        block = vectors[start : start + LINKAGE_TOKENS].astype(np.float64)
        found = (
            np.ones(1, dtype=np.int64)
            if len(block) == 1
            else _ward(block, max(len(block) // factor, 1))
        )
        _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
        by_appearance = np.argsort(np.argsort(first))
        labels.append(by_appearance[inverse] + total)
        total += len(first)
    return np.concatenate(labels).astype(np.int64)


def _ward(block: NDArray[np.float64], num_clusters: int) -> NDArray[np.int64]:
    norms = np.linalg.norm(block, axis=1, keepdims=True)
    units = block / np.maximum(norms, 1e-12)
    upper = np.triu_indices(len(units), 1)
    distances = np.clip(1 - units @ units.T, 0, 2)[upper]
    clusters = fcluster(linkage(distances, "ward"), num_clusters, criterion="maxclust")
    return np.asarray(clusters, dtype=np.int64)


def pool_embeddings(
    embeddings: TokenEmbeddings, factor: int, *, normalized: bool = True
) -> TokenEmbeddings:
    """Replace the vectors of each cluster by their mean, with gradient; the clusters are taken as given.

    Args:
        embeddings: Documents.
        factor: One vector is left of about so many.
        normalized: Bring the means back to length 1.
    """
    if embeddings.exact_match or embeddings.gates is not None:
        raise ValueError("words that are compared by id cannot be pooled")
    values = embeddings.tokens.detach().float().cpu().numpy()
    ends = embeddings.lengths.cumsum(0).tolist()
    labels, lengths, total = [], [], 0
    for start, end in zip([0, *ends], ends, strict=False):
        found = pooling_labels(values[start:end], factor)
        lengths.append(int(found.max()) + 1)
        labels.append(torch.from_numpy(found) + total)
        total += lengths[-1]
    group = torch.cat(labels).to(embeddings.tokens.device)
    pooled = _means(embeddings.tokens, group, total)
    return TokenEmbeddings(
        F.normalize(pooled, dim=1) if normalized else pooled,
        torch.tensor(lengths, device=group.device),
        cls=embeddings.cls,
    )


def _means(
    tokens: Float[Tensor, "tokens dim"], group: Int64[Tensor, " tokens"], num_groups: int
) -> Float[Tensor, "groups dim"]:
    counts = torch.bincount(group, minlength=num_groups)
    sums = tokens.new_zeros(num_groups, tokens.shape[1]).index_add(0, group, tokens)
    return sums / counts[:, None].to(tokens.dtype)
