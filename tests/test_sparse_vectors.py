"""Sparse vectors as three arrays."""

import numpy as np
from posting_toys import random_sparse, sparse

from embedtrain.sparse_vectors import SparseVectors


def test_what_is_not_zero_is_kept_text_behind_text():
    vectors = sparse({1: 2.0, 5: 1.0}, {}, {5: 3.0})
    assert vectors.values.tolist() == [2, 1, 3]
    assert vectors.indices.tolist() == [1, 5, 5]
    assert vectors.offsets.tolist() == [0, 2, 2, 3]
    assert vectors.lengths.tolist() == [2, 0, 1]
    assert len(vectors) == 3
    assert vectors.nbytes == 3 * 4 + 3 * 4 + 4 * 8


def test_parts_selections_and_joins_are_those_of_the_dense_rows():
    vectors = random_sparse(30, 40, 0)
    dense = vectors.dense()
    np.testing.assert_array_equal(vectors.part(7, 19).dense(), dense[7:19])
    rows = np.array([4, 15, 4, 29])
    np.testing.assert_array_equal(vectors.select(rows).dense(), dense[rows])
    assert vectors.select(np.array([], np.int64)).dense().shape == (0, 40)
    joined = SparseVectors.joined([vectors.part(0, 11), vectors.part(11, 11), vectors.part(11, 30)])
    np.testing.assert_array_equal(joined.dense(), dense)


def test_the_heaviest_words_are_kept_of_equal_ones_the_lower(monkeypatch):
    monkeypatch.setattr("embedtrain.sparse_vectors.TEXTS_AT_ONCE", 2)
    vectors = sparse({0: 1.0, 3: 2.0, 7: 2.0, 9: 5.0}, {}, {4: 1.0}, {1: 1.0, 2: 1.0, 3: 1.0})
    kept = vectors.heaviest(2)
    expected = sparse({3: 2.0, 9: 5.0}, {}, {4: 1.0}, {1: 1.0, 2: 1.0})
    np.testing.assert_array_equal(kept.dense(), expected.dense())
    assert vectors.heaviest(4) is vectors


def test_products_are_text_by_text():
    one, other = random_sparse(20, 30, 1), random_sparse(20, 30, 2)
    expected = (one.dense().astype(float) * other.dense()).sum(axis=1)
    np.testing.assert_array_equal(one.products(other), expected)
