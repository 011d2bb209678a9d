"""Search along neighbours: who they are, and that few scores find what all would."""

import numpy as np
import pytest
import torch

from embedtrain.interaction_types import GraphSearch, QueryNetwork
from embedtrain.ops.interaction import interaction_scores
from embedtrain.retrieval.dense.graph import NeighbourGraph
from embedtrain.retrieval.dense.pair_head import search_graph
from embedtrain.retrieval.search import for_many_searches, search

SETTINGS = GraphSearch(neighbours=20, entries=300, expanded=12, max_steps=30)


@pytest.fixture(scope="module")
def documents():
    """Points on a bent surface in eight dimensions, as documents of few topics are."""
    plane = np.random.default_rng(0).uniform(-2, 2, (6000, 2))
    bent = np.concatenate([plane, np.sin(plane * 2), plane**2 / 2, np.cos(plane)], axis=1)
    return bent.astype(np.float32)


@pytest.fixture(scope="module")
def queries():
    torch.manual_seed(0)
    return torch.randn(40, QueryNetwork(8, 2).num_weights).div(2).numpy()


def test_neighbours_are_the_nearest_others(documents):
    some = documents[:200]
    graph = NeighbourGraph.of(some, 5)
    distances = np.square(some[:, None] - some).sum(2)
    np.fill_diagonal(distances, np.inf)
    expected = np.sort(distances, axis=1)[:, :5]
    found = np.take_along_axis(distances, graph.neighbours, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_copies_of_a_document_leave_each_as_many_neighbours():
    graph = NeighbourGraph.of(np.ones((6, 3), dtype=np.float32), 3)
    assert graph.neighbours.shape == (6, 3)
    assert NeighbourGraph.of(np.ones((2, 3), dtype=np.float32), 5).neighbours.shape == (2, 1)


def test_a_tenth_of_the_scores_finds_nineteen_of_twenty_results(documents, queries):
    exact = search(queries, documents, 10, QueryNetwork(8, 2))
    graph = NeighbourGraph.of(documents, SETTINGS.neighbours)
    walked = search_graph(QueryNetwork(8, 2), queries, graph, 10, SETTINGS, "cpu")
    hits = [
        len(np.intersect1d(*rows))
        for rows in zip(exact.indices, walked.result.indices, strict=True)
    ]
    assert sum(hits) / 400 >= 0.95
    assert walked.num_scored.mean() <= len(documents) / 10
    with torch.no_grad():
        scores = interaction_scores(
            QueryNetwork(8, 2), *map(torch.from_numpy, (queries, documents))
        )
    expected = np.take_along_axis(scores.numpy(), walked.result.indices, 1)
    np.testing.assert_allclose(walked.result.scores, expected, rtol=1e-4, atol=1e-4)
    assert (np.diff(walked.result.scores, axis=1) <= 0).all()


def test_a_walk_that_may_see_all_is_the_exact_search(documents, queries):
    some = documents[:300]
    every = GraphSearch(neighbours=5, entries=300, expanded=10, max_steps=3)
    exact = search(queries, some, 10, QueryNetwork(8, 2))
    form = QueryNetwork(8, 2, every)
    kept = for_many_searches(some, form, "cpu")
    assert isinstance(kept, NeighbourGraph)
    for given in (some, kept):
        np.testing.assert_array_equal(search(queries, given, 10, form).indices, exact.indices)
