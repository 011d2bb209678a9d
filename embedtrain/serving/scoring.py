"""Scores of documents for one query from vectors that the desk has computed."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32

from embedtrain.encoding.encoder_pairs import score_vectors
from embedtrain.encoding.texts import join_blocks
from embedtrain.models.encoder import TextEncoder
from embedtrain.serving.served import Vector
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Embeddings, TokenVectors

AT_ONCE = 64
"""Documents scored together: vectors of a vocabulary's length are laid out whole."""


def score_all(model: TextEncoder, query: Vector, documents: Sequence[Vector]) -> list[float]:
    """Return the similarity of a query with each document; all are results of one model's desk."""
    scores: list[float] = []
    for start in range(0, len(documents), AT_ONCE):
        block = documents[start : start + AT_ONCE]
        scores += score_vectors(model, joined([query] * len(block)), joined(block)).tolist()
    return scores


def together(
    results: Sequence[Vector],
) -> Float32[np.ndarray, "texts dim"] | TokenVectors | SparseVectors:
    """Return results of one text each as the arrays of all, which can be searched."""
    if isinstance(results[0], TokenVectors):
        return join_blocks([one.tensors() for one in results if isinstance(one, TokenVectors)])
    if isinstance(results[0], SparseVectors):
        return SparseVectors.joined([one for one in results if isinstance(one, SparseVectors)])
    return np.stack([one for one in results if isinstance(one, np.ndarray)])


def joined(results: Sequence[Vector]) -> Embeddings:
    """Return results of one text each as the embeddings of all."""
    found = together(results)
    if isinstance(found, TokenVectors):
        return found.tensors()
    return torch.from_numpy(found.dense() if isinstance(found, SparseVectors) else found)
