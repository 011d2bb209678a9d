"""Orders of a second stage, worked out by hand."""

import math

import numpy as np
import pytest

from embedtrain.evaluation.measures.metrics import (
    mean_scores,
    rank_arrays,
    score_ranking,
    score_run,
)
from embedtrain.evaluation.measures.second_stage import (
    blend,
    depths_to,
    grades,
    in_trec_order,
    reorder,
)
from embedtrain.evaluation.tasks.retrieval import as_run
from embedtrain.retrieval.dense.exact import SearchResult

METRICS = ["mrr_at_10", "ndcg_at_10"]
IDS = ["d1", "d2", "d3", "d9"]
QRELS = {"q": {"d1": 1, "d9": 1}}


def results(*rows, scores=None):
    indices = np.array(rows, dtype=np.int64)
    falling = -np.arange(indices.shape[1], dtype=np.float32) + np.zeros_like(indices)
    return SearchResult(indices, np.float32(falling if scores is None else scores))


def measured(found, qrels=QRELS, queries=("q",), ids=IDS):
    ranking = rank_arrays(qrels, queries, ids, found.indices, found.scores)
    return mean_scores(score_ranking(ranking, METRICS))


FIRST = results([1, 0, 2])
"""d2, d1, d3: of the relevant d1 and d9 the second was not found."""
RELEVANT = 1 + 1 / math.log2(3)


def test_a_document_that_was_not_found_counts_as_missed():
    reranked = reorder(FIRST, np.float32([[1, 2, 0]]), 3)
    assert reranked.indices.tolist() == [[0, 1, 2]]
    known = reorder(FIRST, grades(QRELS, ["q"], IDS, FIRST), 3)
    expected = {"mrr_at_10": 1.0, "ndcg_at_10": 1 / RELEVANT}
    assert expected["ndcg_at_10"] == pytest.approx(0.613147, abs=5e-7)
    assert measured(reranked) == measured(known) == pytest.approx(expected)
    before = {"mrr_at_10": 0.5, "ndcg_at_10": 0.386853}
    assert measured(FIRST) == pytest.approx(before, abs=5e-7)


def test_equal_scores_keep_the_order_of_the_first_stage():
    found = results([3, 1, 0, 2], [2, -1, -1, -1])
    same = reorder(found, np.zeros((2, 4), np.float32), 4)
    assert np.array_equal(same.indices, found.indices)
    assert (np.diff(same.scores[0]) < 0).all()


def test_a_depth_of_one_changes_nothing_and_one_of_two_swaps_two_places():
    found, scores = results([3, 1, 0, 2]), np.float32([[0, 1, 2, 3]])
    assert reorder(found, scores, 1).indices.tolist() == [[3, 1, 0, 2]]
    two = reorder(found, scores, 2)
    assert (two.indices.tolist(), two.scores.tolist()) == ([[1, 3, 0, 2]], [[1, 0, -1, -2]])
    assert reorder(found, scores, 4).indices.tolist() == [[2, 0, 1, 3]]


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_trec_eval_keeps_the_order_ties_and_the_tail_included(depth):
    generator = np.random.default_rng(depth)
    ids = [f"d{number}" for number in range(6)]
    found = results(*(generator.permutation(6) for _ in range(20)))
    scores = np.float32(generator.integers(3, size=(20, 6)) * 1e9)
    ordered = reorder(found, scores, depth)
    queries = [f"q{row}" for row in range(20)]
    for query, own in as_run(queries, ids, ordered).items():
        row = queries.index(query)
        by_trec = sorted(own, key=lambda name: (np.float32(own[name]), name), reverse=True)
        assert by_trec == [ids[index] for index in ordered.indices[row]]
    qrels = {query: {ids[row % 6]: 1} for row, query in enumerate(queries)}
    run = as_run(queries, ids, ordered)
    assert mean_scores(score_run(qrels, run, METRICS)) == measured(ordered, qrels, queries, ids)


def test_results_are_put_in_the_order_of_trec_eval():
    found = results([0, 1, 2, -1], scores=[[1, 1, 2, -np.inf]])
    ordered = in_trec_order(found, ["b", "c", "a"])
    assert ordered.indices.tolist() == [[2, 1, 0, -1]]
    assert ordered.scores.tolist() == [[2, 1, 1, -np.inf]]
    assert measured(found, {"q": {"c": 1}}, ids=["b", "c", "a"]) == measured(
        results([2, 1, 0]), {"q": {"c": 1}}, ids=["b", "c", "a"]
    )


def test_a_blend_of_all_or_nothing_is_the_order_of_one_stage():
    generator = np.random.default_rng(0)
    found = results(*(generator.permutation(5) for _ in range(9)))
    second = np.float32(generator.normal(size=(9, 5)))
    alone = reorder(found, second, 5).indices
    assert np.array_equal(reorder(found, blend(found.scores, second, 1.0), 5).indices, alone)
    none = reorder(found, blend(found.scores, second, 0.0), 5)
    assert np.array_equal(none.indices, found.indices)


def test_a_blend_adds_z_scores_of_the_places_in_use():
    first, second = np.float32([[3, 1, -np.inf]]), np.float32([[0, 4, 99]])
    mixed = blend(first, second, 0.75)
    assert mixed[0, :2].tolist() == [-0.5, 0.5]
    assert (blend(np.float32([[1, 1]]), np.float32([[5, 5]]), 0.5) == 0).all()


def test_depths_end_with_what_was_scored():
    assert depths_to(100) == [10, 20, 50, 100]
    assert depths_to(30) == [10, 20, 30]
    assert depths_to(3) == [3]
