"""Fewer vectors per text: clusters of similar tokens become their mean, or tokens are left out.

Pooling keeps the first tokens of a text as they are (the marker of the side stands there), joins the
others by Ward's linkage over cosine distances into one cluster for each ``factor`` of them, and takes the
mean of a cluster, of length 1 again. :func:`keep_first` leaves tokens out instead.

Source: Clavié et al. (2024), https://arxiv.org/abs/2409.14683.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int64

from embedtrain.errors import UserError
from embedtrain.ops.maxsim.token_clusters import pooled_labels
from embedtrain.types import TokenVectors


def pool_tokens(vectors: TokenVectors, factor: int) -> TokenVectors:
    """Replace the clusters of each text by their means; factor 2 keeps about half of the vectors.

    Clusters of one token stay bit-identical, the first token's among them. Ids are dropped: a mean
    stands for no single token. Texts are read one by one, so ``vectors`` may be mapped from a file.
    """
    if vectors.exact_match:
        raise UserError(
            "token pooling", "would join vectors of different words", cure="Turn exact_match off"
        )

    def pool(text: Float[np.ndarray, "tokens dim"]) -> Float[np.ndarray, "clusters dim"]:
        return _means(text, pooled_labels(text, factor))

    values, lengths = _map_texts(vectors, lambda start, stop: pool(vectors.values[start:stop]))
    return replace(vectors, values=values, lengths=lengths, ids=None)


def keep_first(vectors: TokenVectors, counts: Int64[np.ndarray, " texts"]) -> TokenVectors:
    """Keep the first ``counts[n]`` tokens of text n, such as ``pool_tokens(...).lengths``."""
    places = np.arange(vectors.lengths.sum()) - np.repeat(
        np.cumsum(vectors.lengths) - vectors.lengths, vectors.lengths
    )
    return _keep(vectors, places < np.repeat(counts, vectors.lengths))


def _means(
    text: Float[np.ndarray, "tokens dim"], labels: Int64[np.ndarray, " tokens"]
) -> Float[np.ndarray, "clusters dim"]:
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), text.shape[1]))
    np.add.at(sums, labels, np.asarray(text, dtype=np.float64))
    means = sums / counts[:, None]
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
