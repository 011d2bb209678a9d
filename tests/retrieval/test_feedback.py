"""Queries that learn from what they found, by numbers worked out by hand."""

import numpy as np
import pytest

from embedtrain.retrieval.dense.exact import SearchResult, search_exact
from embedtrain.retrieval.feedback import Rocchio, move_queries, search_again
from embedtrain.sparse_vectors import SparseVectors

DOCUMENTS = np.array([[0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]], dtype=np.float32)
QUERIES = np.array([[1.0, 0.0], [0.0, -1.0]], dtype=np.float32)


def found(*rows):
    result = SearchResult.empty(len(rows), 2)
    for row, own in enumerate(rows):
        result.indices[row, : len(own)] = own
    return result


def test_a_query_moves_by_the_mean_of_what_it_found():
    moved = move_queries(QUERIES, DOCUMENTS, found([1, 0], []), Rocchio(num_documents=2), "dot")
    assert moved == pytest.approx(np.array([[1.15, 0.45], [0.0, -1.0]]))
    assert QUERIES[0].tolist() == [1.0, 0.0]
    unit = move_queries(QUERIES, DOCUMENTS, found([1, 0], []), Rocchio(num_documents=1), "cosine")
    assert unit[0] == pytest.approx(np.array([1.3, 0.4]) / np.hypot(1.3, 0.4))
    assert unit[1].tolist() == [0.0, -1.0]


def test_a_sparse_query_moves_as_a_dense_one_and_stays_short():
    sparse, documents = SparseVectors.of_dense(QUERIES.clip(0)), SparseVectors.of_dense(DOCUMENTS)
    settings = Rocchio(num_documents=2, beta=0.25)
    moved = move_queries(sparse, documents, found([1, 0], []), settings, "dot")
    expected = move_queries(QUERIES.clip(0), DOCUMENTS, found([1, 0], []), settings, "dot")
    assert moved.dense() == pytest.approx(expected)
    short = Rocchio(num_documents=2, beta=0.25, entries=1)
    assert move_queries(sparse, documents, found([1, 0], []), short, "dot").lengths.tolist() == [
        1,
        0,
    ]


def test_no_weight_is_the_first_search_again():
    def find(vectors, number):
        return search_exact(vectors, DOCUMENTS, number)

    plain = find(QUERIES, 3)
    again = search_again(find, QUERIES, DOCUMENTS, 3, Rocchio(beta=0.0), "cosine")
    assert (again.indices == plain.indices).all()
    assert (again.scores == plain.scores).all()
    moved = search_again(find, QUERIES, DOCUMENTS, 1, Rocchio(num_documents=1), "cosine")
    assert moved.indices[:, 0].tolist() == [1, 2]
    assert moved.scores[0, 0] > plain.scores[0, 0]
