"""Thresholds by hand-worked values."""

import numpy as np
import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.thresholds import (
    cut_at,
    lowest_cut,
    overlap,
    precision_bound,
    separation,
)

SCORES = np.array([0.9, 0.8, 0.7, 0.4, 0.75, 0.6, 0.5, 0.3, 0.2, 0.1])
RELEVANT = np.array([True] * 4 + [False] * 6)


@pytest.mark.parametrize(("wanted", "score", "recall"), [(0.75, 0.7, 0.75), (0.9, 0.8, 0.5)])
def test_the_lowest_score_that_reaches_a_precision(wanted, score, recall):
    assert lowest_cut(SCORES, RELEVANT, wanted, sure=False) == score
    assert cut_at(score, SCORES, RELEVANT).recall == recall
    assert cut_at(score, SCORES, RELEVANT).precision >= wanted


def test_equal_scores_are_shown_together():
    scores, relevant = np.array([0.5, 0.5, 0.4]), np.array([True, False, True])
    assert lowest_cut(scores, relevant, 0.6, sure=False) == 0.4
    with pytest.raises(UserError, match="no score reaches"):
        lowest_cut(scores, relevant, 0.7, sure=False)


def test_the_bound_is_that_of_clopper_and_pearson():
    bounds = [precision_bound(9, 10), precision_bound(27, 30), precision_bound(90, 100)]
    assert bounds == pytest.approx([0.606, 0.761, 0.836], abs=5e-4)
    assert precision_bound(0, 10) == 0


def test_a_sure_threshold_holds_on_other_pairs_and_a_naive_one_does_not():
    generator, missed = np.random.default_rng(0), {True: 0, False: 0}
    chances = 1 / (
        1 + np.exp(np.linspace(8, -8, 4000))
    )  # how often a pair of such a score is relevant
    for _ in range(200):
        rows = generator.integers(len(chances), size=200)
        relevant = generator.random(200) < chances[rows]
        for sure in missed:
            score = lowest_cut(chances[rows], relevant, 0.9, sure=sure)
            missed[sure] += float(chances[chances >= score].mean()) < 0.9
    assert missed[True] <= 10
    assert missed[False] > 60


def test_the_overlap_of_two_normals_two_apart():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=40_000), generator.normal(2, size=40_000)
    assert overlap(first, second) == pytest.approx(0.3173, abs=0.02)
    assert overlap(first, first) == pytest.approx(1)
    assert overlap(np.ones(2), np.ones(3)) == 1
    assert overlap(np.zeros(2), np.ones(3)) == 0


def test_separation_counts_ties_half():
    assert separation(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(3.5 / 4)
