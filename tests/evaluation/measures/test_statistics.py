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


@pytest.mark.parametrize("clusters", [None, ["a", "a", "b", "c", "c", "c", "d"]])
def test_the_interval_and_its_p_value_are_those_of_a_loop_by_hand(clusters):
    values = np.array([1.0, 2.0, 3.0, 4.0, 10.0, -1.0, 2.5])
    groups = [[place] for place in range(7)] if clusters is None else [[0, 1], [2], [3, 4, 5], [6]]
    totals = np.array([values[group].sum() for group in groups])
    sizes = np.array([len(group) for group in groups])

    def mean_and_error(picked):
        total, size = totals[picked], sizes[picked]
        mean = total.sum() / size.sum()
        factor = len(picked) / (len(picked) - 1)
        return mean, np.sqrt(factor * ((total - size * mean) ** 2).sum()) / size.sum()

    mean, error = mean_and_error(np.arange(len(groups)))
    draws = np.random.Generator(np.random.PCG64(0)).integers(len(groups), size=(99, len(groups)))
    found = [mean_and_error(picked) for picked in draws]
    distances = sorted(abs(one - mean) / spread for one, spread in found if spread > 1e-9)
    half = distances[int(np.ceil(0.95 * (len(distances) + 1))) - 1] * error
    ours = bootstrap_interval(values, clusters=clusters, num_resamples=99)
    assert (ours.value, ours.low, ours.high) == pytest.approx((mean, mean - half, mean + half))
    assert (ours.num, ours.method) == (len(groups), "studentised")
    reached = sum(distance >= mean / error - 1e-9 for distance in distances)
    theirs = max((1 + reached) / (len(distances) + 1), sign_flip_p_value(values, clusters=clusters))
    compared = compare_paired(values, np.zeros(7), clusters=clusters, num_resamples=99)
    assert compared.p_value == pytest.approx(theirs)


def test_a_standard_error_without_clusters_is_that_of_a_mean():
    values = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    assert statistics._standard_error(values, np.ones(5)) == pytest.approx(stats.sem(values))


def test_few_skewed_scores_are_covered_nearly_as_often_as_said():
    rng = np.random.default_rng(5)
    misses = [
        misses_zero(bootstrap_interval(rng.exponential(size=20) - 1, num_resamples=FEW_RESAMPLES))
        for _ in range(NUM_SIMULATIONS)
    ]
    assert 0.03 <= np.mean(misses) <= 0.085  # of percentile intervals 0.1 miss


def test_up_to_fifteen_differences_are_tested_exactly():
    # Of the 32 patterns of signs only all plus and all minus reach 20.
    assert sign_flip_p_value(np.array([1.0, 2.0, 3.0, 4.0, 10.0])) == 2 / 32
    assert sign_flip_p_value(np.full(15, 0.1)) == 2 / 2**15


def test_a_share_has_wilsons_interval():
    interval = bootstrap_interval(np.array([1.0] * 19 + [0.0]))
    assert (interval.low, interval.high) == pytest.approx((0.764, 0.991), abs=5e-4)
    assert interval.method == "wilson"
    sure = bootstrap_interval(np.ones(20))
    assert (sure.low, sure.high) == pytest.approx((0.839, 1.0), abs=5e-4)


def test_scores_from_0_to_1_have_an_interval_from_0_to_1():
    values = np.array([0.99, 1.0, 0.97, 1.0, 1.0, 0.3, 1.0, 0.98, 1.0])
    interval = bootstrap_interval(values)
    assert 0 <= interval.low < interval.high == 1.0
    assert bootstrap_interval(values - 1).high > 0


def test_where_resamples_have_no_spread_the_interval_is_students():
    values = np.array([0.5, *[0.0] * 9])  # one resample in three has none of the only difference
    interval = bootstrap_interval(values - 0.01)
    reach = stats.t.ppf(0.975, 9) * stats.sem(values)
    assert interval.method == "t"
    assert (interval.low, interval.high) == pytest.approx((0.04 - reach, 0.04 + reach))
    assert compare_paired(values, np.zeros(10)).p_value == sign_flip_p_value(values)


def test_equal_differences_leave_a_point_and_the_sign_flip_test():
    compared = compare_paired(np.full(20, 0.3), np.full(20, 0.2))
    assert compared.low == compared.high == compared.difference == pytest.approx(0.1)
    assert (compared.method, compared.num) == ("constant", 20)
    assert compared.p_value < 0.001


def test_one_cluster_per_query_is_the_same_as_no_clusters():
    values = np.random.default_rng(0).normal(size=40)
    labels = [f"{number:02d}" for number in range(40)]
    assert bootstrap_interval(values, clusters=labels) == bootstrap_interval(values)
    tenths = values.clip(0.1, 0.9)
    assert bootstrap_interval(tenths, clusters=labels) == bootstrap_interval(tenths)
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
    factor = stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)
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
