"""Seismic behind the same door; skipped where the extra is not installed."""

import numpy as np
import pytest
from posting_toys import random_sparse, sparse

from embedtrain.errors import UserError
from embedtrain.retrieval.sparse import seismic
from embedtrain.retrieval.sparse.exact import InvertedIndex


def test_it_finds_nearly_all_and_is_saved_and_loaded(tmp_path):
    pytest.importorskip("seismic")
    documents, queries = random_sparse(300, 60, 0), random_sparse(25, 60, 1)
    exact = InvertedIndex.of(documents).search(queries, 10)
    index = seismic.SeismicSearch(query_words=60).build(documents)
    found = index.search(queries, 10)
    share = [
        np.isin(a[a >= 0], b).mean()
        for a, b in zip(exact.indices, found.indices, strict=True)
        if a[0] >= 0
    ]
    assert np.mean(share) > 0.9
    assert found.indices[12].tolist() == [-1] * 10  # the query without words
    rows, places = np.nonzero(found.indices >= 0)
    chosen = documents.select(found.indices[rows, places])
    np.testing.assert_allclose(
        found.scores[rows, places], queries.select(rows).products(chosen), rtol=1e-3
    )
    index.save(tmp_path / "index")
    loaded = seismic.SeismicIndex.load(tmp_path / "index")
    assert loaded.num_bytes == index.num_bytes > 0
    np.testing.assert_array_equal(loaded.search(queries, 10).indices, found.indices)


def test_a_word_that_no_document_has_is_passed_over():
    pytest.importorskip("seismic")
    index = seismic.SeismicSearch().build(sparse({1: 2.0, 5: 1.0}, {5: 3.0}))
    found = index.search(sparse({0: 1.0, 1: 1.0}, {0: 1.0}), 2)
    assert found.indices.tolist() == [[0, -1], [-1, -1]]


def test_without_the_package_the_extra_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(seismic.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"embedtrain\[seismic\]"):
        seismic.SeismicSearch().build(sparse({1: 1.0}))


def test_documents_that_it_cannot_cluster_are_refused(monkeypatch):
    pytest.importorskip("seismic")
    with pytest.raises(UserError, match="without any entry"):
        seismic.SeismicSearch().build(sparse({}, {}))
    monkeypatch.setattr(seismic, "MOST_WORDS", 2)
    with pytest.raises(UserError, match="more than the 2 words"):
        seismic.SeismicSearch().build(sparse({1: 2.0, 5: 1.0}, {7: 3.0}))
