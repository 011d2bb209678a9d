"""Fewer vectors per text: clusters of similar tokens become their mean, or tokens are left out.

Pooling keeps the first tokens of a text as they are (the marker of the side stands there), joins the
others by Ward's linkage over cosine distances into one cluster for each ``factor`` of them, and takes the
mean of a cluster, of length 1 again. :func:`keep_first` and :func:`keep_rarest` leave tokens out instead;
they are the controls that pooling has to beat at equal numbers of vectors.

Source: Clavié et al. (2024), https://arxiv.org/abs/2409.14683.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.cluster.hierarchy import fcluster, linkage

from embedtrain.errors import UserError
from embedtrain.retrieval.token_frequency import TokenFrequencies
from embedtrain.types import TokenVectors

LINKED_TOKENS = 512
"""Tokens of one linkage, whose memory and time grow with their square: a longer text is cut."""
LARGEST_FACTOR = LINKED_TOKENS // 2
"""A longer text is cut into parts of at least this many tokens; each gives one cluster at least."""


def pooled_labels(
    vectors: Float[np.ndarray, "tokens dim"], factor: int, *, num_protected: int = 1
) -> Int64[np.ndarray, " tokens"]:
    """Say which cluster each token of one text belongs to, numbered by first occurrence.

    The first ``num_protected`` tokens are clusters of their own; n others make at most
    ``max(n // factor, 1)``. The mean over equal labels is the pooled text, whether of stored vectors or
    of ones with a gradient. A text longer than 512 tokens is clustered in parts of equal length. Vectors
    may have any norm; a vector of zeros has distance 1 to all others.
    """
    check_factor(factor)
    protected = min(num_protected, len(vectors))
    labels = np.arange(len(vectors), dtype=np.int64)
    if factor == 1:
        return labels
    rest = np.arange(protected, len(vectors))
    for part in np.array_split(rest, max(1, -(-len(rest) // LINKED_TOKENS))):
        num_clusters = max(len(part) // factor, 1)
        if len(part) > num_clusters:
            labels[part] = part[0] + _cluster(vectors[part], num_clusters)
    # A label is the place of its cluster's first token, so sorting them numbers by first occurrence.
    numbers: Int64[np.ndarray, " tokens"] = np.unique(labels, return_inverse=True)[1]
    return numbers


def pool_tokens(
    vectors: TokenVectors, factor: int, *, num_protected: int = 1, normalize: bool = True
) -> TokenVectors:
    """Replace the clusters of each text by their means; factor 2 keeps about half of the vectors.

    Clusters of one token stay bit-identical, the protected ones among them. Ids are dropped: a mean
    stands for no single token. Texts are read one by one, so ``vectors`` may be mapped from a file.

    Args:
        vectors: The documents.
        factor: Tokens per cluster, on average.
        num_protected: Tokens at the start that are never joined.
        normalize: Give means the length 1; turn it off for models without normalised vectors.
    """
    if vectors.exact_match:
        raise UserError(
            "token pooling", "would join vectors of different words", cure="Turn exact_match off"
        )

    def pool(text: Float[np.ndarray, "tokens dim"]) -> Float[np.ndarray, "clusters dim"]:
        labels = pooled_labels(text, factor, num_protected=num_protected)
        return _means(text, labels, normalize=normalize)

    values, lengths = _map_texts(vectors, lambda start, stop: pool(vectors.values[start:stop]))
    return replace(vectors, values=values, lengths=lengths, ids=None)


def keep_first(vectors: TokenVectors, counts: Int64[np.ndarray, " texts"]) -> TokenVectors:
    """Keep the first ``counts[n]`` tokens of text n, such as ``pool_tokens(...).lengths``."""
    places = np.arange(vectors.lengths.sum()) - np.repeat(
        np.cumsum(vectors.lengths) - vectors.lengths, vectors.lengths
    )
    return _keep(vectors, places < np.repeat(counts, vectors.lengths))


def keep_rarest(
    vectors: TokenVectors,
    counts: Int64[np.ndarray, " texts"],
    frequencies: TokenFrequencies,
    *,
    num_protected: int = 1,
) -> TokenVectors:
    """Keep the ``counts[n]`` tokens of text n that fewest texts of the corpus contain.

    The first ``num_protected`` tokens come before all others, as in pooling; among equally rare tokens
    the first is kept. Kept tokens stay in their order.
    """
    if vectors.ids is None:
        raise UserError("keep_rarest", "needs ids of the tokens", cure="Encode with ids")
    rarity = frequencies.inverse(vectors.ids)
    kept = np.zeros(len(rarity), dtype=bool)
    start = 0
    for length, count in zip(vectors.lengths.tolist(), counts.tolist(), strict=True):
        text = rarity[start : start + length]
        text[:num_protected] = np.inf
        kept[start + np.argsort(-text, kind="stable")[:count]] = True
        start += length
    return _keep(vectors, kept)


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
    values = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    values = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
    rows, columns = np.triu_indices(len(values), 1)  # scipy takes the triangle, row by row
    distances: Float64[np.ndarray, " pairs"] = 1 - (values @ values.T)[rows, columns]
    tree = linkage(np.maximum(distances, 0), method="ward")
    _, first, inverse = np.unique(
        fcluster(tree, t=num_clusters, criterion="maxclust"),
        return_index=True,
        return_inverse=True,
    )
    return first[inverse]


def _means(
    text: Float[np.ndarray, "tokens dim"],
    labels: Int64[np.ndarray, " tokens"],
    *,
    normalize: bool,
) -> Float[np.ndarray, "clusters dim"]:
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), text.shape[1]))
    np.add.at(sums, labels, np.asarray(text, dtype=np.float64))
    means = sums / counts[:, None]
    if normalize:
        joined = counts > 1
        norms = np.linalg.norm(means[joined], axis=1, keepdims=True)
        means[joined] /= np.where(norms > 0, norms, 1)
    return means.astype(text.dtype)


def _map_texts(
    vectors: TokenVectors, change: Callable[[int, int], Float[np.ndarray, "_ dim"]]
) -> tuple[Float[np.ndarray, "tokens dim"], Int64[np.ndarray, " texts"]]:
    """Put what ``change`` makes of each text's range of tokens end to end."""
    ends = np.cumsum(vectors.lengths).tolist()
    starts = [0, *ends[:-1]]
    changed = [change(start, stop) for start, stop in zip(starts, ends, strict=True)]
    lengths = np.array([len(text) for text in changed], dtype=np.int64)
    return np.concatenate([vectors.values[:0], *changed]), lengths


def _keep(vectors: TokenVectors, kept: Bool[np.ndarray, " tokens"]) -> TokenVectors:
    texts = np.repeat(np.arange(len(vectors)), vectors.lengths)
    return replace(
        vectors,
        values=vectors.values[kept],
        lengths=np.bincount(texts[kept], minlength=len(vectors)),
        ids=None if vectors.ids is None else vectors.ids[kept],
    )
