"""Candidates from a sparse model."""

import numpy as np
import pytest
from posting_toys import brute, random_sparse

from embedtrain.errors import UserError
from embedtrain.mining.sparse import EncodedSparse, WordsSearch, open_sparse


@pytest.fixture
def encoded():
    return EncodedSparse("key", random_sparse(25, 60, 1), random_sparse(300, 60, 0))


def open_index(encoded, **settings):
    return open_sparse(WordsSearch.model_validate(settings), "sparse", encoded, 10, seed=0)


def test_exact_search_is_the_sorted_product(encoded):
    rows = np.array([3, 12, 7])
    expected, scores = brute(encoded.queries.select(rows), encoded.documents, 10)
    found = open_index(encoded).search(rows, 10)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(encoded.score(rows, found), scores)
    assert (found[1] == -1).all()  # a query without words


def test_an_index_brings_what_its_recall_says_and_writes_it_down(encoded):
    index = {"name": "two_step", "document_words": 5, "query_words": 5}
    source = open_index(encoded, index=index, min_recall=0.5)
    assert 0.5 <= source.report["recall"] <= 1
    assert source.report["recall_depth"] == 10
    rows = np.arange(25)
    shares = [
        np.isin(one, other).mean()
        for one, other in zip(encoded.search(rows, 10), source.search(rows, 10), strict=True)
    ]
    assert np.mean(shares) == pytest.approx(source.report["recall"], abs=0.05)


def test_an_index_that_finds_too_little_is_refused(encoded):
    index = {"name": "two_step", "document_words": 1, "query_words": 1}
    with pytest.raises(UserError, match=r"finds only 0\.\d+ of the exact results.*'two_step'"):
        open_index(encoded, index=index, min_recall=0.99)
