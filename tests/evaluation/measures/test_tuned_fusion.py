"""Weights that are learned from judged queries, and never told by those that they are measured on."""

import numpy as np
import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.evaluation.measures.tuned_fusion import (
    METRIC,
    Judged,
    assign_folds,
    choose,
    cross_validate,
    fit_weights,
    score_grid,
    weight_grid,
)
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.fusion import Fusion, normalise, pool_lists

DOCUMENTS = 30


def scored(scores):
    """The list of all documents by their scores."""
    order = np.argsort(-scores, axis=1, kind="stable")
    values = np.take_along_axis(scores, order, axis=1).astype(np.float32)
    return normalise(SearchResult(order, values), Fusion())


def judged(scores, answers):
    ids = [f"q{number}" for number in range(len(answers))]
    documents = [f"d{number}" for number in range(DOCUMENTS)]
    qrels = {query: {f"d{answer}": 1} for query, answer in zip(ids, answers, strict=True)}
    return Judged(pool_lists([scored(one) for one in scores]), ids, documents, qrels)


def mean_score(judged, found):
    ids = judged.query_ids, judged.document_ids
    ranking = rank_arrays(judged.qrels, *ids, found.indices, found.scores)
    return np.mean(list(score_ranking(ranking, [METRIC])[METRIC].values()))


def test_a_grid_holds_all_weights_of_one_step_and_begins_with_equal_ones():
    assert [len(weight_grid(number)) for number in (2, 3, 4, 5, 6)] == [11, 66, 286, 126, 252]
    assert weight_grid(2)[0] == (0.5, 0.5)
    assert weight_grid(3)[0] in {(0.3, 0.3, 0.4), (0.3, 0.4, 0.3), (0.4, 0.3, 0.3)}
    assert all(sum(one) == pytest.approx(1) for one in weight_grid(4))
    with pytest.raises(UserError, match="weighs 2 to 6 systems; got 7"):
        weight_grid(7)


def test_of_equal_means_the_point_nearest_to_equal_weights_is_chosen():
    assert choose(np.array([[0.1, 0.3], [0.2, 0.2], [0.4, 0.0]])) == 0
    assert choose(np.array([[0.1, 0.2], [0.3, 0.2], [0.2, 0.3]])) == 1


def test_a_cluster_is_never_on_both_sides():
    clusters = [f"c{number // 3}" for number in range(60)]
    folds = assign_folds(clusters)
    assert np.bincount(folds).tolist() == [12] * 5
    assert all(len(set(folds[start : start + 3])) == 1 for start in range(0, 60, 3))
    assert (assign_folds(clusters) == folds).all()
    with pytest.raises(UserError, match=r"needs 10 queries or clusters for 5 folds; got 9"):
        assign_folds(list("abcdefghi"))


def test_each_query_is_fused_under_the_weights_of_the_other_folds():
    generator = np.random.default_rng(3)
    answers = generator.integers(DOCUMENTS, size=50)
    scores = generator.random((2, 50, DOCUMENTS))
    task = judged(scores, answers)
    folds = assign_folds(task.query_ids)
    tuned = cross_validate(task, folds, 10)
    grid = weight_grid(2)
    by_point = score_grid(task, grid)
    for fold, weights in enumerate(tuned.folds):
        assert weights == grid[choose(by_point[:, folds != fold])]
        found = task.pool.add_up(weights, 10)
        assert (tuned.found.indices[folds == fold] == found.indices[folds == fold]).all()
    assert tuned.weights == fit_weights(task) == grid[choose(by_point)]


def test_two_systems_that_know_half_of_the_answers_each_weigh_the_same():
    generator = np.random.default_rng(0)
    answers = generator.integers(DOCUMENTS, size=100)
    scores = generator.random((2, 100, DOCUMENTS))
    scores[0, np.arange(50), answers[:50]] = 1.5
    scores[1, np.arange(50, 100), answers[50:]] = 1.5
    task = judged(scores, answers)
    tuned = cross_validate(task, assign_folds(task.query_ids), 10)
    assert all(0.3 <= weight <= 0.7 for fold in tuned.folds for weight in fold)


def test_where_there_is_nothing_to_learn_tuning_gains_nothing_and_peeking_does():
    gains, peeks = [], []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        scores = generator.random((2, 40, DOCUMENTS))
        task = judged(scores, generator.integers(DOCUMENTS, size=40))
        equal = mean_score(task, task.pool.add_up((0.5, 0.5), 10))
        tuned = cross_validate(task, assign_folds(task.query_ids), 10)
        gains.append(mean_score(task, tuned.found) - equal)
        peeks.append(mean_score(task, task.pool.add_up(tuned.weights, 10)) - equal)
    assert np.mean(peeks) > 0.01
    assert np.mean(gains) < 0.2 * np.mean(peeks)
