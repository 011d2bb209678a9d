"""Inverted lists against a dense product."""

import json

import numpy as np
import pytest
from posting_toys import brute, random_sparse, sparse

from embedtrain.errors import UserError
from embedtrain.retrieval.index_folder import MANIFEST
from embedtrain.retrieval.search import for_many_searches, search
from embedtrain.retrieval.sparse.exact import ByteListSearch, InvertedIndex, InvertedSearch
from embedtrain.sparse_vectors import SparseVectors

WORKED = sparse({1: 2.0, 5: 1.0}, {5: 3.0}, {9: 1.0})


def test_a_document_without_a_common_word_is_no_result():
    found = InvertedSearch().build(WORKED).search(sparse({5: 1.0, 1: 1.0}, {}, {0: 1.0}), 3)
    assert found.indices.tolist() == [[0, 1, -1], [-1, -1, -1], [-1, -1, -1]]  # 0 and 1 tie
    assert found.scores[0].tolist() == [3, 3, -np.inf]
    assert np.isneginf(found.scores[1:]).all()


@pytest.mark.parametrize("wanted", [1, 7, 50, 400])
def test_results_are_those_of_the_dense_product_ties_included(wanted):
    documents, queries = random_sparse(300, 60, 0), random_sparse(25, 60, 1)
    rows, scores = brute(queries, documents, wanted)
    found = InvertedIndex.of(documents).search(queries, wanted)
    np.testing.assert_array_equal(found.indices, rows)
    np.testing.assert_array_equal(found.scores, scores.astype(np.float32))


def test_a_score_of_zero_or_less_is_no_result():
    documents = sparse({1: 1.0}, {2: 1.0}, {1: 1.0, 2: 1.0})
    found = InvertedIndex.of(documents).search(sparse({1: 1.0, 2: -1.0}), 3)
    assert found.indices.tolist() == [[0, -1, -1]]


def test_search_takes_sparse_vectors_and_lists_that_were_made_before():
    documents, queries = random_sparse(50, 30, 0), random_sparse(9, 30, 1)
    first = search(queries, documents, 5)
    again = search(queries, for_many_searches(documents, None, "cpu"), 5)
    np.testing.assert_array_equal(first.indices, again.indices)
    with pytest.raises(UserError, match="vectors of one kind"):
        search(queries, np.zeros((3, 30), np.float32), 5)
    with pytest.raises(UserError, match="vectors of one kind"):
        search(np.zeros((3, 30), np.float32), documents, 5)


def test_bytes_are_steps_of_the_largest_weight():
    lists = ByteListSearch().build(sparse({0: 0.1, 1: 1.0}, {0: 2.55}, {3: 0.001})).lists
    assert lists.step == pytest.approx(0.01)
    assert lists.weights.tolist() == [10, 255, 100]  # by word; 0.001 became 0 and is gone
    assert lists.rows.tolist() == [0, 1, 0]
    found = lists.search(sparse({0: 2.0, 1: 1.0}), 3)
    assert found.indices.tolist() == [[1, 0, -1]]
    np.testing.assert_allclose(found.scores[0, :2], [5.1, 1.2], rtol=1e-6)


def test_bytes_take_five_bytes_a_posting_and_find_nearly_the_same():
    documents, queries = random_sparse(300, 60, 0), random_sparse(25, 60, 1)
    exact, rounded = InvertedIndex.of(documents), ByteListSearch().build(documents)
    assert exact.num_bytes - rounded.num_bytes == 3 * len(documents.values)
    scores, near = (index.search(queries, 10).scores for index in (exact, rounded))
    np.testing.assert_allclose(near, scores, rtol=0.02)


@pytest.mark.parametrize("settings", [InvertedSearch(), ByteListSearch()])
def test_a_saved_index_gives_the_same_bytes(tmp_path, settings):
    documents, queries = random_sparse(80, 30, 0), random_sparse(9, 30, 1)
    index = settings.build(documents)
    index.save(tmp_path / "index")
    loaded = InvertedIndex.load(tmp_path / "index")
    assert (loaded.kind, loaded.num_bytes) == (index.kind, index.num_bytes)
    first, again = (one.search(queries, 5) for one in (index, loaded))
    np.testing.assert_array_equal(first.indices, again.indices)
    np.testing.assert_array_equal(first.scores, again.scores)


def test_touched_postings_are_the_lengths_of_the_lists():
    lists = InvertedIndex.of(WORKED)
    assert lists.touched(sparse({5: 1.0, 1: 1.0}, {}, {9: 2.0, 0: 1.0})).tolist() == [3, 0, 1]


def test_what_cannot_be_searched_is_refused_in_one_line():
    index = InvertedIndex.of(WORKED)
    with pytest.raises(UserError, match="one vocabulary; documents have 12 words, queries; got 13"):
        index.search(sparse({1: 1.0}, dim=13), 2)
    with pytest.raises(UserError, match="num_results must be at least 1"):
        index.search(sparse({1: 1.0}), 0)
    with pytest.raises(UserError, match="has no queries"):
        index.search(WORKED.part(0, 0), 2)
    with pytest.raises(UserError, match="has no documents"):
        InvertedIndex.of(WORKED.part(0, 0))
    broken = SparseVectors(np.array([np.nan], np.float32), *_one_entry(), dim=12)
    with pytest.raises(UserError, match="NaN"):
        InvertedIndex.of(broken)


def _one_entry():
    return np.array([3], np.int32), np.array([0, 1], np.int64)


def test_a_manifest_that_does_not_fit_the_lists_is_refused(tmp_path):
    InvertedIndex.of(sparse({1: 1.0}, {1: 2.0})).save(tmp_path / "index")
    place = tmp_path / "index" / MANIFEST
    content = json.loads(place.read_text())
    for change, message in (({"num_documents": 1}, "more documents"), ({"step": 0}, "no step")):
        place.write_text(json.dumps(content | change))
        with pytest.raises(UserError, match=message):
            InvertedIndex.load(tmp_path / "index")
    place.write_text(json.dumps(content | {"step": 1}))
    assert InvertedIndex.load(tmp_path / "index").lists.step == 1.0
