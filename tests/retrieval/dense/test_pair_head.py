"""Search by a network: the same ranking in blocks, by shortlist, and by sorting all scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedtrain.models.dense.pair_head import InteractionConfig, InteractionHead
from embedtrain.ops.interaction import interaction_scores
from embedtrain.precision import float32_products
from embedtrain.retrieval.dense import pair_head as module
from embedtrain.retrieval.search import search


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return InteractionHead(6, InteractionConfig(hidden=5)).weights


@pytest.fixture
def vectors():
    generator = np.random.Generator(np.random.PCG64(0))
    return generator.standard_normal((3, 6), np.float32), generator.standard_normal(
        (40, 6), np.float32
    )


def test_the_best_of_all_scores_are_found_in_blocks(weights, vectors, monkeypatch):
    queries, documents = vectors
    monkeypatch.setattr(module, "DOCUMENTS_AT_ONCE", 7)
    monkeypatch.setattr(module, "HIDDEN_AT_ONCE", 7 * 5 * 2)  # two of the three queries
    found = search(queries, documents, 5, weights)
    with torch.no_grad():
        scores = interaction_scores(weights, *map(torch.from_numpy, vectors)).numpy()
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, expected, 1), rtol=1e-5)


@pytest.mark.parametrize("hidden_at_once", [2**22, 8 * 5 * 2, 1])
def test_a_shortlist_holds_what_inner_products_propose(
    weights, vectors, hidden_at_once, monkeypatch
):
    queries, documents = vectors
    monkeypatch.setattr(module, "HIDDEN_AT_ONCE", hidden_at_once)
    proposed = np.argsort(-(queries @ documents.T), axis=1)[:, :8]
    found = search(queries, documents, 8, replace(weights, shortlist=8))
    np.testing.assert_array_equal(np.sort(found.indices, 1), np.sort(proposed, 1))
    assert (np.diff(found.scores, axis=1) <= 0).all()
    every = search(queries, documents, 40, weights)
    for row in range(3):
        score = dict(zip(every.indices[row], every.scores[row], strict=True))
        wanted = [score[index] for index in found.indices[row]]
        np.testing.assert_allclose(found.scores[row], wanted, rtol=1e-5)


def test_a_shortlist_is_never_shorter_than_the_results(weights, vectors):
    assert search(*vectors, 10, replace(weights, shortlist=2)).indices.shape == (3, 10)


@pytest.mark.parametrize("shortlist", [None, 8])
def test_inside_a_run_in_bf16_scores_are_exact(shortlist, weights, vectors, monkeypatch):
    settings, seen, best = torch.backends.cuda.matmul, [], module.best_columns

    def note(scores, num_results):
        seen.append((settings.fp32_precision, torch.is_autocast_enabled("cuda"), scores.dtype))
        return best(scores, num_results)

    shadow_cuda = pytest.importorskip("shadow")
    weights = replace(weights, shortlist=shortlist)
    expected = search(*vectors, 5, weights)
    monkeypatch.setattr(module, "best_columns", note)
    with (
        shadow_cuda.ShadowCuda(),
        float32_products("tf32", "cuda"),
        torch.autocast("cuda", torch.bfloat16),
        torch.no_grad(),
    ):
        found = search(*vectors, 5, weights.to("cuda"), "cuda")
    assert set(seen) == {("ieee", False, torch.float32)}
    np.testing.assert_array_equal(found.indices, expected.indices)
