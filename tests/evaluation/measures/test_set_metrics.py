"""Metrics of whole sets against scipy, scikit-learn, and items that are really repeated."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.set_metrics import (
    SET_METRICS,
    as_arrays,
    set_metric,
)


def score_items(name, predicted, expected):
    """Compute a metric of the items as they are, each once."""
    return float(set_metric(name, predicted, expected)(np.ones((1, len(predicted))))[0])


def items(name, rng, number=60):
    """Predictions with many ties, and expectations of the form that the metric wants."""
    predicted = rng.integers(0, 12, size=number) / 4
    if name == "average_precision":
        return predicted, rng.integers(0, 2, size=number) * 1.0
    if name == "v_measure":
        return predicted, rng.integers(0, 5, size=number) * 1.0
    return predicted, predicted + rng.integers(0, 6, size=number)


REFERENCES = {
    "spearman": lambda predicted, expected: stats.spearmanr(predicted, expected).statistic,
    "pearson": lambda predicted, expected: stats.pearsonr(predicted, expected).statistic,
    "average_precision": lambda p, e: metrics.average_precision_score(e, p),
    "v_measure": lambda p, e: metrics.v_measure_score(e, (4 * p).astype(int)),
}


@pytest.mark.parametrize("name", SET_METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_a_metric_equals_that_of_scipy_or_scikit_learn(name, seed):
    predicted, expected = items(name, np.random.default_rng(seed))
    assert score_items(name, predicted, expected) == pytest.approx(
        REFERENCES[name](predicted, expected), abs=1e-12
    )


@pytest.mark.parametrize("name", SET_METRICS)
def test_a_weight_is_the_number_of_times_an_item_occurs(name):
    rng = np.random.default_rng(7)
    predicted, expected = items(name, rng)
    weights = rng.integers(0, 4, size=(3, len(predicted)))
    scored = set_metric(name, predicted, expected)(weights.astype(float))
    for row, value in zip(weights, scored, strict=True):
        repeated = np.repeat(predicted, row), np.repeat(expected, row)
        assert value == pytest.approx(score_items(name, *repeated), abs=1e-12)


def test_hand_worked_average_precision_takes_ties_together():
    predicted = np.array([0.9, 0.5, 0.5, 0.1])
    expected = np.array([1.0, 1.0, 0.0, 0.0])
    assert score_items("average_precision", predicted, expected) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_order_of_the_items_does_not_matter():
    rng = np.random.default_rng(1)
    for name in SET_METRICS:
        predicted, expected = items(name, rng)
        order = rng.permutation(len(predicted))
        assert score_items(name, predicted[order], expected[order]) == pytest.approx(
            score_items(name, predicted, expected)
        )


def test_an_undefined_metric_is_nan_and_not_a_number_that_looks_good():
    same, spread = np.ones(4), np.arange(4.0)
    assert np.isnan(score_items("spearman", same, spread))
    assert np.isnan(score_items("average_precision", spread, np.zeros(4)))


def test_values_are_laid_out_by_item_and_an_unknown_name_says_which_exist():
    laid_out = as_arrays({"a": 1.0, "b": 2.0}, {"b": 0.0, "a": 1.0}, ["b", "a"])
    assert [values.tolist() for values in laid_out] == [[2.0, 1.0], [0.0, 1.0]]
    with pytest.raises(UserError, match=r"unknown metric; got 'kendall'. Use spearman, pearson"):
        set_metric("kendall", np.ones(2), np.ones(2))
