"""Propensities and the precision weighed by them, by hand-worked values."""

import numpy as np
import pytest

from embedtrain.evaluation.measures.propensity import propensities, propensity_precision


def test_propensities_of_ten_thousand_rows():
    found = propensities(np.array([0, 1, 10, 100, 1000]), 10_000)
    assert found == pytest.approx([0.0842, 0.1086, 0.2199, 0.4829, 0.7669], abs=5e-5)


def test_a_missed_rare_label_costs_more_than_a_found_frequent_one_brings():
    chances = {"a": 0.1, "b": 0.8, "c": 0.5}
    values = [propensity_precision([["b", "c"]], [{"a", "b"}], chances, k) for k in (1, 2)]
    assert values == pytest.approx([0.125, 0.1111], abs=5e-5)


def test_sums_are_divided_and_not_queries():
    chances = {"a": 0.1, "b": 0.8}
    both = propensity_precision([["a"], ["a"]], [{"a"}, {"b"}], chances, 1)
    assert both == pytest.approx(10 / (10 + 1.25))
