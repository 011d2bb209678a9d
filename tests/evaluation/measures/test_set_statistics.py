"""Coverage and false alarms of the bootstrap of whole-set metrics, by simulation."""

import numpy as np
import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.set_metrics import set_metric
from embedtrain.evaluation.measures.set_statistics import (
    bootstrap_metric,
    compare_metric,
    draw_weights,
)

NUM_SIMULATIONS = 500
FEW_RESAMPLES = 300


def test_a_spearman_interval_misses_the_truth_about_five_times_in_a_hundred():
    rng = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman of two normal variables of correlation 0.6
    misses = 0
    for seed in range(NUM_SIMULATIONS):
        first, noise = rng.normal(size=(2, 100))
        score = set_metric("spearman", first, 0.6 * first + 0.8 * noise)
        interval = bootstrap_metric(score, 100, num_resamples=FEW_RESAMPLES, seed=seed)
        misses += not interval.low <= truth <= interval.high
    assert 0.03 <= misses / NUM_SIMULATIONS <= 0.08


@pytest.mark.parametrize(
    "name", ["spearman", pytest.param("average_precision", marks=pytest.mark.prove)]
)
def test_two_equally_good_systems_differ_about_five_times_in_a_hundred(name):
    rng = np.random.default_rng(1)
    alarms = 0
    for seed in range(NUM_SIMULATIONS):
        expected = rng.normal(size=120)
        if name == "average_precision":
            expected = (expected > 0) * 1.0
        systems = [set_metric(name, expected + rng.normal(size=120), expected) for _ in range(2)]
        comparison = compare_metric(*systems, 120, num_resamples=FEW_RESAMPLES, seed=seed)
        alarms += comparison.p_value < 0.05
    assert 0.03 <= alarms / NUM_SIMULATIONS <= 0.08


def test_a_cluster_bootstrap_is_wider_where_items_of_a_cluster_agree():
    rng = np.random.default_rng(2)
    expected, errors = np.repeat(rng.normal(size=(2, 20)), 10, axis=1)
    labels = [str(number) for number in np.repeat(np.arange(20), 10)]
    score = set_metric("pearson", expected + errors, expected)
    by_item = bootstrap_metric(score, 200)
    by_cluster = bootstrap_metric(score, 200, clusters=labels)
    assert by_cluster.value == by_item.value
    assert by_cluster.high - by_cluster.low > 2 * (by_item.high - by_item.low)


def test_the_difference_that_can_be_found_shrinks_with_the_root_of_the_items():
    rng = np.random.default_rng(3)

    def detectable(number):
        expected = rng.normal(size=number)
        systems = [
            set_metric("pearson", expected + rng.normal(size=number), expected) for _ in range(2)
        ]
        return compare_metric(*systems, number).minimum_detectable_difference

    assert detectable(250) / detectable(4000) == pytest.approx(4, rel=0.25)


def test_a_system_does_not_differ_from_itself():
    expected = np.random.default_rng(4).normal(size=50)
    score = set_metric("spearman", expected**3 + 1, expected)
    comparison = compare_metric(score, score, 50, num_resamples=100)
    assert (comparison.difference, comparison.p_value) == (0.0, 1.0)


def test_every_resample_draws_as_many_clusters_as_there_are_and_repeats_with_the_seed():
    labels = ["a", "a", "b", "c"]
    (weights,) = draw_weights(4, labels, 50, seed=1)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 1:].sum(axis=1) == 3).all()
    (again,) = draw_weights(4, labels, 50, seed=1)
    assert (weights == again).all()


def test_a_metric_that_is_undefined_is_the_users_mistake():
    score = set_metric("spearman", np.ones(5), np.arange(5.0))
    with pytest.raises(UserError, match="all expectations or all predictions are equal"):
        bootstrap_metric(score, 5)
