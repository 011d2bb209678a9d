import pytest
from objective_toys import number
from sts_toys import pairs_of

from embedtrain.objectives.contrastive import Contrastive


def test_positives_pay_their_distance_and_negatives_what_they_lack_to_the_margin() -> None:
    outputs = pairs_of([0.8, 0.9, 0.3], [1.0, 0.0, 0.0])
    expected = (0.2**2 + (0.5 - 0.1) ** 2 + 0) / 2 / 3
    assert number(Contrastive()(outputs).loss) == pytest.approx(expected)


def test_a_negative_beyond_the_margin_has_no_gradient() -> None:
    outputs = pairs_of([0.3], [0.0])
    Contrastive()(outputs).loss.backward()
    assert not outputs.document.grad.any()
