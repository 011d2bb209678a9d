"""fast-plaid behind the protocol: a stand-in for the package, whose wheels fix another torch."""

import gc
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from token_toys import maxsim_in_loops, whole_tokens

from embedtrain.errors import UserError
from embedtrain.retrieval.late_interaction.fast_plaid import FastPlaidIndex, FastPlaidSearch
from embedtrain.types import TokenVectors


class StandIn:
    """Has the part of ``fast_plaid.search.FastPlaid`` (1.7.0) that is used."""

    def __init__(self, index, device):
        assert device == "cpu"
        self.path = Path(index) / "documents.pt"

    def create(self, documents_embeddings, nbits, seed):
        assert (nbits, seed) == (2, 7)
        torch.save(documents_embeddings, self.path)
        return self

    def search(self, queries_embeddings, top_k, n_full_scores, n_ivf_probe, show_progress):
        assert (n_full_scores, n_ivf_probe, show_progress) == (4096, 3, False)
        documents = torch.load(self.path)
        results = []
        for query in queries_embeddings:
            scores = [float((query @ d.T).amax(1).sum()) for d in documents]
            order = sorted(range(len(scores)), key=lambda n: (-scores[n], -n))
            results.append([(n, scores[n]) for n in order[:top_k]])
        return results


@pytest.fixture
def installed(monkeypatch):
    module = ModuleType("fast_plaid.search")
    module.FastPlaid = StandIn
    monkeypatch.setitem(sys.modules, "fast_plaid", ModuleType("fast_plaid"))
    monkeypatch.setitem(sys.modules, "fast_plaid.search", module)


SEARCH = FastPlaidSearch(num_bits=2, num_probes=3, seed=7)


@pytest.mark.usefixtures("installed")
def test_an_index_searches_is_saved_and_opened_again(tmp_path):
    queries, documents = whole_tokens(5, 4, 0), whole_tokens(20, 4, 1)
    index = SEARCH.build(documents)
    found = index.search(queries, 20)
    truth = maxsim_in_loops(queries, documents)
    np.testing.assert_array_equal(found.scores, -np.sort(-truth, axis=1))
    np.testing.assert_array_equal(np.take_along_axis(truth, found.indices, axis=1), found.scores)
    ties = np.diff(found.scores, axis=1) == 0
    assert (np.diff(found.indices, axis=1)[ties] > 0).all()
    index.save(tmp_path / "index")
    loaded = FastPlaidIndex.load(tmp_path / "index")
    np.testing.assert_array_equal(loaded.search(queries, 5).scores, found.scores[:, :5])
    assert loaded.num_bytes == index.num_bytes > 0
    assert index.search(queries, 30).indices.shape == (5, 20)


@pytest.mark.usefixtures("installed")
def test_an_index_that_is_never_saved_leaves_no_files():
    index = SEARCH.build(whole_tokens(3, 4, 0))
    folder = index.folder
    assert folder.is_dir()
    del index
    gc.collect()
    assert not folder.exists()


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_plaid", None)
    monkeypatch.setitem(sys.modules, "fast_plaid.search", None)
    with pytest.raises(UserError, match=r'pip install "embedtrain\[fast-plaid\]"'):
        SEARCH.build(whole_tokens(3, 4, 0))


def test_what_it_does_not_know_is_refused():
    for documents in (
        whole_tokens(9, 4, 0, longest=1, shortest=0),
        TokenVectors(np.ones((1, 4)), np.array([1]), cls=np.ones((1, 2))),
        TokenVectors(np.ones((1, 4)), np.array([1]), np.array([1]), exact_match=True),
    ):
        with pytest.raises(UserError, match="needs documents with tokens"):
            SEARCH.build(documents)
