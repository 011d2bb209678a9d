"""Associations by hand-worked values."""

import math

import numpy as np
import pytest

from embedtrain.evaluation.measures.associations import (
    associations,
    effect_size,
    partition_p_value,
)

X, Y = np.array([[1, 0], [0.8, 0.6]]), np.array([[0, 1], [0.6, 0.8]])
A, B = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])


def generator():
    return np.random.Generator(np.random.PCG64(0))


def test_planted_directions():
    first, second = associations(X, A, B), associations(Y, A, B)
    assert first == pytest.approx([1, 0.2])
    assert second == pytest.approx([-1, -0.2])
    assert effect_size(first, second) == pytest.approx(1.44115, abs=1e-5)
    assert partition_p_value(first, second, generator()) == pytest.approx(1 / 6)
    assert partition_p_value(second, first, generator()) == 1


def test_lengths_of_vectors_do_not_matter():
    assert associations(7 * X, 3 * A, B) == pytest.approx(associations(X, A, B))


def test_the_effect_rises_with_what_is_added_along_the_direction():
    effects = []
    for step in (0, 0.2, 0.5, 1):
        moved = X + step * (A - B)
        effects.append(effect_size(associations(moved, A, B), associations(Y, A, B)))
    assert effects == sorted(effects)
    assert effects[0] < effects[-1]


def test_words_that_are_all_alike_have_no_effect():
    same = np.ones(3)
    assert effect_size(same, same) == 0
    assert partition_p_value(same, same, generator()) == 1


def test_drawn_partitions_come_near_all_of_them(monkeypatch):
    values = np.random.default_rng(1).normal(size=14)
    first, second = values[:7] + 0.5, values[7:]
    exact = partition_p_value(first, second, generator())
    monkeypatch.setattr("embedtrain.evaluation.measures.associations.ENUMERATED", 0)
    drawn = partition_p_value(first, second, generator())
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000))
