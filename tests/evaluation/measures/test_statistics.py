"""Intervals and tests against simulation, enumeration and scipy."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from embedtrain.errors import UserError
from embedtrain.evaluation.measures import statistics
from embedtrain.evaluation.measures.statistics import (
    bootstrap_interval,
    compare_paired,
    holm_correction,
    minimum_detectable_difference,
    sign_flip_p_value,
)

NUM_SIMULATIONS = 1000
FEW_RESAMPLES = 400


def clustered_null(rng, num_clusters=30, cluster_size=10):
    """Differences of mean zero whose clusters share half of a query's spread."""
    shared = np.repeat(rng.normal(scale=0.1, size=num_clusters), cluster_size)
    labels = [f"c{number}" for number in np.repeat(np.arange(num_clusters), cluster_size)]
    return shared + rng.normal(scale=0.1, size=len(shared)), labels


def misses_zero(interval):
    return interval.low > 0 or interval.high < 0


def test_a_bootstrap_interval_misses_the_truth_about_five_times_in_a_hundred():
    rng = np.random.default_rng(1)
    misses = [
        misses_zero(bootstrap_interval(rng.normal(size=60), num_resamples=FEW_RESAMPLES))
        for _ in range(NUM_SIMULATIONS)
    ]
    assert 0.03 <= np.mean(misses) <= 0.08


def test_a_cluster_bootstrap_covers_where_the_one_by_query_is_far_too_narrow():
    rng = np.random.default_rng(2)
    by_cluster, by_query = [], []
    for _ in range(NUM_SIMULATIONS):
        values, labels = clustered_null(rng)
        by_cluster.append(
            misses_zero(bootstrap_interval(values, clusters=labels, num_resamples=FEW_RESAMPLES))
        )
        by_query.append(misses_zero(bootstrap_interval(values, num_resamples=100)))
    assert 0.03 <= np.mean(by_cluster) <= 0.08
    assert np.mean(by_query) > 0.15


def test_a_sign_flip_test_raises_a_false_alarm_about_five_times_in_a_hundred():
    rng = np.random.default_rng(3)
    alarms = [
        sign_flip_p_value(rng.standard_t(5, size=30), num_resamples=FEW_RESAMPLES, seed=seed) < 0.05
        for seed in range(NUM_SIMULATIONS)
    ]
    assert 0.03 <= np.mean(alarms) <= 0.08


def test_a_sign_flip_test_by_cluster_keeps_its_level_where_the_one_by_query_does_not():
    rng = np.random.default_rng(4)
    by_cluster, by_query = [], []
    for seed in range(NUM_SIMULATIONS):
        values, labels = clustered_null(rng, num_clusters=20, cluster_size=8)
        p_value = sign_flip_p_value(values, clusters=labels, num_resamples=FEW_RESAMPLES, seed=seed)
        by_cluster.append(p_value < 0.05)
        by_query.append(sign_flip_p_value(values, num_resamples=100, seed=seed) < 0.05)
    assert 0.03 <= np.mean(by_cluster) <= 0.08
    assert np.mean(by_query) > 0.15


def test_the_sign_flip_p_value_agrees_with_all_sign_patterns():
    differences = np.array([0.5, -0.1, 0.3, 0.2, 0.0, 0.4, -0.2, 0.1])
    sums = [abs(np.dot(signs, differences)) for signs in product([1, -1], repeat=8)]
    exact = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-9)
    assert sign_flip_p_value(differences) == pytest.approx(exact, abs=0.01)


def test_the_bootstrap_interval_agrees_with_scipy():
    values = np.random.default_rng(0).gamma(1.0, size=80)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = bootstrap_interval(values)
    assert ours.value == values.mean()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_one_cluster_per_query_is_the_same_as_no_clusters():
    values = np.random.default_rng(0).normal(size=40)
    labels = [f"{number:02d}" for number in range(40)]
    assert bootstrap_interval(values, clusters=labels) == bootstrap_interval(values)
    assert sign_flip_p_value(values, clusters=labels) == sign_flip_p_value(values)
    assert minimum_detectable_difference(values, clusters=labels) == pytest.approx(
        minimum_detectable_difference(values)
    )


def test_results_do_not_depend_on_the_block_of_draws(monkeypatch):
    values = np.random.default_rng(0).normal(0.1, size=37)
    whole = bootstrap_interval(values), sign_flip_p_value(values)
    monkeypatch.setattr(statistics, "DRAWS_PER_BLOCK", 1000)
    assert (bootstrap_interval(values), sign_flip_p_value(values)) == whole


def test_a_seed_decides_the_interval():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_equal_systems_differ_by_nothing():
    values = np.random.default_rng(0).random(50)
    comparison = compare_paired(values, values)
    assert (comparison.difference, comparison.low, comparison.high) == (0.0, 0.0, 0.0)
    assert comparison.p_value == 1.0
    assert comparison.minimum_detectable_difference == 0.0


def test_a_clear_gain_is_found_and_its_sign_is_that_of_the_better_system():
    rng = np.random.default_rng(0)
    baseline = rng.random(200)
    comparison = compare_paired(baseline + 0.1 + rng.normal(scale=0.1, size=200), baseline)
    assert comparison.low > 0.05
    assert comparison.p_value < 0.001


def test_the_minimum_detectable_difference_is_found_with_its_power():
    rng = np.random.default_rng(0)
    spread, num_queries = 0.2, 100
    detectable = minimum_detectable_difference(rng.normal(scale=spread, size=100_000)) * np.sqrt(
        100_000 / num_queries
    )
    found = [
        stats.ttest_1samp(rng.normal(detectable, spread, num_queries), 0).pvalue < 0.05
        for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_the_minimum_detectable_difference_by_cluster_is_the_formula_by_hand():
    values, labels = np.array([0.1, 0.3, -0.2, 0.4, 0.6]), ["a", "a", "b", "c", "c"]
    mean, sizes = 1.2 / 5, np.array([2, 1, 2])
    deviations = np.array([0.4, -0.2, 1.0]) - sizes * mean
    error = np.sqrt(3 / 2 * (deviations**2).sum()) / 5  # three clusters, two degrees of freedom
    factor = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    found = minimum_detectable_difference(values, clusters=labels)
    assert found == pytest.approx(factor * error)


def test_one_query_or_cluster_cannot_be_compared():
    with pytest.raises(UserError, match="at least two queries or clusters; got 1"):
        compare_paired(np.array([0.3]), np.array([0.2]))
    with pytest.raises(UserError, match="at least two queries or clusters; got 1"):
        compare_paired(np.array([0.3, 0.4]), np.array([0.2, 0.1]), clusters=["a", "a"])


def test_holm_multiplies_the_smallest_most_and_stays_monotone():
    assert holm_correction([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm_correction([0.6, 0.9]) == [1.0, 1.0]
    assert holm_correction([]) == []


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], None, "need at least one query"),
        ([0.1, float("nan")], None, "not finite"),
        ([0.1, 0.2], ["a"], "not as many as the 2 queries; got 1"),
    ],
)
def test_values_that_cannot_be_judged_are_refused(values, clusters, message):
    with pytest.raises(UserError, match=message):
        bootstrap_interval(np.array(values, dtype=np.float64), clusters=clusters)
