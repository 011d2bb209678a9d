"""Scores become probabilities."""

import numpy as np
import pytest

from embedtrain.evaluation.measures.calibration import (
    calibrate,
    calibration_error,
    fit_sigmoid,
    log_loss,
)

SCORES = np.array([3.0, 2, 1, 0, -1, -2])
RELEVANT = np.array([1, 1, 0, 1, 0, 0], dtype=bool)
ALIKE = np.ones(6)


def sigmoid(scores, slope=1.0, intercept=0.0):
    return 1 / (1 + np.exp(-(slope * scores + intercept)))


def test_the_fit_and_its_figures_are_those_worked_by_hand():
    slope, intercept = fit_sigmoid(SCORES, RELEVANT, ALIKE)
    assert (slope, intercept) == pytest.approx((1.214028, -0.607014), abs=1e-6)
    after, before = sigmoid(SCORES, slope, intercept), sigmoid(SCORES)
    assert log_loss(after, RELEVANT, ALIKE) == pytest.approx(0.412998, abs=1e-6)
    assert log_loss(before, RELEVANT, ALIKE) == pytest.approx(0.437019, abs=1e-6)
    found = calibration_error(np.array([0.9, 0.8, 0.3, 0.1]), np.array([1, 0, 0, 0], bool), 2)
    assert found == pytest.approx(0.275)


def test_a_pair_that_weighs_twice_is_one_that_stands_twice():
    twice = fit_sigmoid(SCORES, RELEVANT, np.array([1.0, 2, 1, 1, 1, 1]))
    stands = fit_sigmoid(np.append(SCORES, 2.0), np.append(RELEVANT, True), np.ones(7))
    assert twice == pytest.approx(stands)


@pytest.mark.parametrize(
    "relevant",
    [[0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 1]],
    ids=["all alike", "parted by one score", "the wrong way round"],
)
def test_scores_that_have_no_level_get_none(relevant):
    assert fit_sigmoid(SCORES, np.array(relevant, bool), ALIKE) is None


def test_scores_of_a_known_law_get_its_parameters_and_queries_count_alike():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(2000, 10)) * 3
    relevant = generator.random(scores.shape) < sigmoid(scores, 0.5, -2.0)
    scores[::3, 4:] = -np.inf
    found = calibrate(scores, relevant)
    assert (found.slope, found.intercept) == pytest.approx((0.5, -2.0), abs=0.06)
    assert found.error < 0.02 < found.error_before
    assert found.loss < found.loss_before
    p = sigmoid(scores[np.isfinite(scores)], found.slope, found.intercept)
    above = p >= found.threshold
    assert relevant[np.isfinite(scores)][above].mean() >= 0.9
    longer = np.concatenate([scores, np.full((2000, 5), -np.inf)], 1)
    assert calibrate(longer, np.pad(relevant, ((0, 0), (0, 5)))) == found
