"""KoLeo against loops."""

import math

import pytest
import torch

from embedtrain.ops.koleo import koleo

CIRCLE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)


def by_loops(vectors: torch.Tensor) -> float:
    units = [[x / math.hypot(*row) for x in row] for row in vectors.tolist()]
    losses = []
    for i, row in enumerate(units):
        others = [other for j, other in enumerate(units) if j != i]
        nearest = max(others, key=lambda other: sum(x * y for x, y in zip(row, other, strict=True)))
        losses.append(-math.log(math.dist(row, nearest)))
    return sum(losses) / len(losses)


def test_three_points_on_the_circle():
    assert float(koleo(CIRCLE, CIRCLE)) == pytest.approx(0.342621, abs=1e-6)


def test_lengths_play_no_part_and_blocks_change_nothing(monkeypatch):
    vectors = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = by_loops(vectors)
    for at_once in (1024, 3):
        monkeypatch.setattr("embedtrain.ops.koleo.ROWS_AT_ONCE", at_once)
        assert float(koleo(vectors * 3, vectors * 3)) == pytest.approx(expected, abs=1e-6)


def test_the_nearest_may_be_another_ranks():
    own, other = CIRCLE[:2], CIRCLE[2:]
    expected = -(math.log(math.dist([1, 0], [0.6, 0.8])) + math.log(math.dist([0, 1], [0.6, 0.8])))
    found = koleo(own, torch.cat([own, other]))
    assert float(found) == pytest.approx(expected / 2, abs=1e-6)


def test_two_equal_vectors_have_a_finite_loss_and_gradient_and_a_lonely_one_costs_nothing():
    vectors = torch.ones(2, 3, requires_grad=True)
    loss = koleo(vectors, vectors)
    loss.backward()
    assert loss.isfinite()
    assert vectors.grad.isfinite().all()
    assert koleo(vectors[:1], vectors[:1]).item() == 0.0
