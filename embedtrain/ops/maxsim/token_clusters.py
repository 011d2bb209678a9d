"""Which tokens of a text are alike: Ward's linkage over cosine distances.

Used by token pooling in training, where the means have a gradient, and on stored vectors.

Source: Clavié et al. (2024), https://arxiv.org/abs/2409.14683.
"""

import numpy as np
from jaxtyping import Float, Float64, Int64

from embedtrain.errors import UserError

LINKED_TOKENS = 512
"""Tokens of one linkage, whose memory and time grow with their square: a longer text is cut."""
LARGEST_FACTOR = LINKED_TOKENS // 2
"""A longer text is cut into parts of at least this many tokens; each gives one cluster at least."""


def pooled_labels(
    vectors: Float[np.ndarray, "tokens dim"], factor: int
) -> Int64[np.ndarray, " tokens"]:
    """Say which cluster each token of one text belongs to, numbered by first occurrence.

    The first token, where a side's marker stands, is a cluster of its own; n others make at most
    ``max(n // factor, 1)``. The mean over equal labels is the pooled text, whether of stored vectors or
    of ones with a gradient. A text longer than 512 tokens is clustered in parts of equal length. Vectors
    may have any norm; a vector of zeros has distance 1 to all others.
    """
    check_factor(factor)
    labels = np.arange(len(vectors), dtype=np.int64)
    if factor == 1:
        return labels
    rest = np.arange(min(1, len(vectors)), len(vectors))
    for part in np.array_split(rest, max(1, -(-len(rest) // LINKED_TOKENS))):
        num_clusters = max(len(part) // factor, 1)
        if len(part) > num_clusters:
            labels[part] = part[0] + _cluster(vectors[part], num_clusters)
    # A label is the place of its cluster's first token, so sorting them numbers by first occurrence.
    numbers: Int64[np.ndarray, " tokens"] = np.unique(labels, return_inverse=True)[1]
    return numbers


def check_factor(factor: int) -> None:
    """Refuse a factor of no use."""
    if not 1 <= factor <= LARGEST_FACTOR:
        raise UserError(
            "token pooling",
            f"needs a factor between 1 and {LARGEST_FACTOR}",
            got=factor,
            cure="Try 2, which loses next to nothing, or 4",
        )


def _cluster(
    vectors: Float[np.ndarray, "tokens dim"], num_clusters: int
) -> Int64[np.ndarray, " tokens"]:
    """Number the tokens by their cluster: a number is the place of the cluster's first token."""
    from scipy.cluster import hierarchy  # a large package, only where tokens are pooled

    values = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    values = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
    rows, columns = np.triu_indices(len(values), 1)  # scipy takes the triangle, row by row
    distances: Float64[np.ndarray, " pairs"] = 1 - (values @ values.T)[rows, columns]
    tree = hierarchy.linkage(np.maximum(distances, 0), method="ward")
    _, first, inverse = np.unique(
        hierarchy.fcluster(tree, t=num_clusters, criterion="maxclust"),
        return_index=True,
        return_inverse=True,
    )
    return first[inverse]
