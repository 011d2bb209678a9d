import numpy as np
import pytest
from objective_toys import number
from sts_toys import pairs_of

from embedtrain.objectives.pearson import Pearson


def test_it_is_one_minus_numpys_correlation() -> None:
    similarity, labels = [0.9, 0.1, 0.4, -0.3], [0.5, 0.2, 0.2, 1.0]
    expected = 1 - np.corrcoef(similarity, labels)[0, 1]
    assert number(Pearson()(pairs_of(similarity, labels)).loss) == pytest.approx(expected)


def test_a_linear_relation_costs_nothing_and_a_falling_one_most() -> None:
    labels = [0.0, 0.2, 0.7, 1.0]
    rising, falling = [0.4 * y - 0.1 for y in labels], [0.3 - 0.4 * y for y in labels]
    assert number(Pearson()(pairs_of(rising, labels)).loss) == pytest.approx(0)
    assert number(Pearson()(pairs_of(falling, labels)).loss) == pytest.approx(2)


@pytest.mark.parametrize(
    ("similarity", "labels"), [([0.3, 0.5], [1.0, 1.0]), ([0.3, 0.3], [0.0, 1.0])]
)
def test_batches_without_spread_have_finite_gradients(similarity, labels) -> None:
    outputs = pairs_of(similarity, labels)
    loss = Pearson()(outputs).loss
    loss.backward()
    assert outputs.document.grad.isfinite().all()
    assert number(loss) in (0.0, 1.0)
