"""Two steps: shortened lists propose, whole documents decide."""

import numpy as np
import pytest
from posting_toys import brute, random_sparse, sparse

from embedtrain.retrieval.sparse.exact import InvertedIndex
from embedtrain.retrieval.sparse.two_step import TwoStepIndex, TwoStepSearch


def test_with_all_words_and_all_candidates_it_is_exact_search():
    documents, queries = random_sparse(300, 60, 0), random_sparse(25, 60, 1)
    settings = TwoStepSearch(document_words=60, query_words=60, num_candidates=300)
    found = settings.build(documents).search(queries, 20)
    rows, scores = brute(queries, documents, 20)
    np.testing.assert_array_equal(found.indices, rows)
    np.testing.assert_array_equal(found.scores, scores.astype(np.float32))


def test_more_candidates_find_more_and_scores_are_those_of_whole_documents():
    documents, queries = random_sparse(300, 60, 0), random_sparse(25, 60, 1)
    exact = InvertedIndex.of(documents).search(queries, 10).indices
    shares = []
    for wanted in (10, 30, 100):
        settings = TwoStepSearch(document_words=3, query_words=3, num_candidates=wanted)
        found = settings.build(documents).search(queries, 10)
        real = found.indices >= 0
        rows = np.nonzero(real)[0]
        products = queries.select(rows).products(documents.select(found.indices[real]))
        np.testing.assert_allclose(found.scores[real], products, rtol=1e-6)
        shares.append(
            np.mean([np.isin(a, b).mean() for a, b in zip(exact, found.indices, strict=True)])
        )
    assert shares[0] < shares[1] < shares[2]


def test_a_query_or_document_without_words_is_found_by_nothing():
    settings = TwoStepSearch(document_words=1, query_words=1)
    index = settings.build(sparse({1: 2.0, 5: 1.0}, {}))
    found = index.search(sparse({}, {5: 3.0, 1: 1.0}, {1: 1.0}), 2)
    # The second query's heaviest word, 5, is not among the one kept of document 0.
    assert found.indices.tolist() == [[-1, -1], [-1, -1], [0, -1]]


def test_the_first_step_reads_fewer_postings():
    documents, queries = random_sparse(300, 60, 0), random_sparse(25, 60, 1)
    short = TwoStepSearch(document_words=3, query_words=3).build(documents)
    assert short.touched(queries).mean() < InvertedIndex.of(documents).touched(queries).mean() / 3


@pytest.mark.parametrize("entries", [2, 60])
def test_a_saved_index_gives_the_same_bytes(tmp_path, entries):
    documents, queries = random_sparse(80, 30, 0), random_sparse(9, 30, 1)
    index = TwoStepSearch(document_words=entries, num_candidates=7).build(documents)
    index.save(tmp_path / "index")
    loaded = TwoStepIndex.load(tmp_path / "index")
    assert (loaded.settings, loaded.num_bytes) == (index.settings, index.num_bytes)
    first, again = (one.search(queries, 5) for one in (index, loaded))
    np.testing.assert_array_equal(first.indices, again.indices)
    np.testing.assert_array_equal(first.scores, again.scores)
