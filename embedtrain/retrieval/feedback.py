r"""Pseudo-relevance feedback: a query moves towards what it finds, and searches again.

With one vector per text, plain or sparse, $q' = q + \beta\,\mathrm{mean}(d_1 \ldots d_n)$ (Rocchio); several vectors
are lengthened by those of :mod:`embedtrain.retrieval.late_interaction.feedback`.

Source: Rocchio (1971), Relevance Feedback in Information Retrieval; of dense vectors: Li et al. (2021),
https://arxiv.org/abs/2108.11044.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32
from pydantic import NonNegativeFloat
from scipy.sparse import csr_array

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.late_interaction.feedback import Feedback, expand_queries
from embedtrain.retrieval.late_interaction.rerank import rerank
from embedtrain.section import Count, Section
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Similarity, TokenVectors

Vectors = Float[np.ndarray, "_ dim"] | TokenVectors | SparseVectors


class Rocchio(Section):
    """How a query's vector moves towards the documents that it finds."""

    num_documents: Count = 3
    """Documents of the first search that are taken as relevant."""
    beta: NonNegativeFloat = 0.5
    """Weight of their mean beside the query; 0 is the first search again."""
    entries: Count = 64
    """Entries that a sparse query keeps, at least as many as it had; the largest."""


def search_again(
    find: Callable[[Vectors, int], SearchResult],
    queries: Vectors,
    documents: Vectors,
    num_results: int,
    settings: Rocchio | Feedback,
    similarity: Similarity,
) -> SearchResult:
    """Search, let the queries learn from what was found, and search again.

    Args:
        find: Searches the documents for vectors.
        queries: The queries.
        documents: What ``find`` searches.
        num_results: Documents wanted for each query.
        settings: How the queries learn; of the kind of vectors.
        similarity: With ``cosine`` moved queries get the length 1 again.
    """
    first = find(queries, max(num_results, settings.num_documents))
    if isinstance(settings, Feedback):
        assert isinstance(queries, TokenVectors)
        assert isinstance(documents, TokenVectors)
        longer = expand_queries(queries, documents, first, settings)
        if settings.second_pass == "rerank":
            return rerank(longer, documents, first.indices, num_results)
        return find(longer, num_results)
    if isinstance(queries, TokenVectors) or isinstance(documents, TokenVectors):
        raise UserError("--feedback", "has settings of one vector per text", got=settings)
    return find(move_queries(queries, documents, first, settings, similarity), num_results)


def move_queries(
    queries: Float[np.ndarray, "queries dim"] | SparseVectors,
    documents: Float[np.ndarray, "documents dim"] | SparseVectors,
    first: SearchResult,
    settings: Rocchio,
    similarity: Similarity,
) -> Float32[np.ndarray, "queries dim"] | SparseVectors:
    """Add to each query the weighted mean of the first documents that it found; one that found none stays."""
    rows = first.indices[:, : settings.num_documents]
    if isinstance(queries, SparseVectors):
        assert isinstance(documents, SparseVectors)
        places, columns = np.nonzero(rows >= 0)
        chosen = documents.select(rows[places, columns]).matrix()
        shares = settings.beta / np.maximum((rows >= 0).sum(axis=1), 1)
        lines = np.arange(len(places))
        weights = csr_array((shares[places], (places, lines)), shape=(len(rows), len(places)))
        return sum_of(queries.matrix() + weights @ chosen, max(settings.entries, _longest(queries)))
    assert not isinstance(documents, SparseVectors)
    moved = np.array(queries, dtype=np.float32)
    for query, own in enumerate(rows):
        if (own >= 0).any() and settings.beta > 0:
            mean = np.asarray(documents[own[own >= 0]], dtype=np.float32).mean(axis=0)
            moved[query] += np.float32(settings.beta) * mean
            if similarity == "cosine":
                moved[query] /= max(float(np.linalg.norm(moved[query])), 1e-12)
    return moved


def sum_of(matrix: csr_array, entries: int) -> SparseVectors:
    """Return the largest entries of each row as vectors."""
    matrix = csr_array(matrix)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    vectors = SparseVectors(
        matrix.data.astype(np.float32),
        matrix.indices.astype(np.int32),
        matrix.indptr.astype(np.int64),
        matrix.shape[1],
    )
    return vectors.heaviest(entries)


def scaled(vectors: TokenVectors, factors: Float[np.ndarray, " texts"]) -> TokenVectors:
    """Multiply all vectors of each text: a weight of at least 0 goes into the vectors as it does into scores."""
    per_token = np.repeat(factors, vectors.lengths).astype(np.float32)[:, None]
    return replace(vectors, values=np.asarray(vectors.values, dtype=np.float32) * per_token)


def _longest(vectors: SparseVectors) -> int:
    return int(vectors.lengths.max(initial=0))
