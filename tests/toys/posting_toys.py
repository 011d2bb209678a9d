"""Sparse vectors made by hand and by chance, and the plain way to search them."""

import numpy as np

from embedtrain.sparse_vectors import SparseVectors


def sparse(*texts: dict[int, float], dim: int = 12) -> SparseVectors:
    values = np.zeros((len(texts), dim), np.float32)
    for row, words in enumerate(texts):
        for word, weight in words.items():
            values[row, word] = weight
    return SparseVectors.of_dense(values)


def random_sparse(texts: int, dim: int, seed: int, *, entries: int = 8) -> SparseVectors:
    """Weights are eighths, so that sums are exact in any order; frequent words are the first; one text is empty."""
    generator = np.random.default_rng(seed)
    values = np.zeros((texts, dim), np.float32)
    for row in range(texts):
        words = np.minimum(generator.geometric(0.05, entries), dim) - 1
        values[row, words] = generator.integers(1, 24, entries) / 8
    values[texts // 2] = 0
    return SparseVectors.of_dense(values)


def brute(queries: SparseVectors, documents: SparseVectors, wanted: int):
    """Return ids and scores of the best documents by a dense product; -1 where nothing is shared."""
    scores = queries.dense().astype(np.float64) @ documents.dense().astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :wanted]
    best = np.take_along_axis(scores, order, axis=1)
    return np.where(best > 0, order, -1), np.where(best > 0, best, -np.inf)
