import pytest
from objective_toys import number
from sts_toys import pairs_of

from embedtrain.objectives.cosine_regression import CosineRegression


@pytest.mark.parametrize(("distance", "expected"), [("squared", 0.05), ("absolute", 0.2)])
def test_it_is_the_mean_error(distance, expected) -> None:
    outputs = pairs_of([0.9, 0.2], [0.6, 0.3])
    assert number(CosineRegression(distance=distance)(outputs).loss) == pytest.approx(expected)


def test_a_batch_costs_the_mean_of_its_single_samples() -> None:
    similarity, labels = [0.9, 0.2, -0.4], [0.0, 1.0, 0.5]
    alone = [
        number(CosineRegression()(pairs_of([s], [y])).loss)
        for s, y in zip(similarity, labels, strict=True)
    ]
    whole = number(CosineRegression()(pairs_of(similarity, labels)).loss)
    assert whole == pytest.approx(sum(alone) / 3)


def test_a_negative_that_is_orthogonal_has_no_gradient() -> None:
    outputs = pairs_of([0.0], [0.0])
    CosineRegression()(outputs).loss.backward()
    assert not outputs.document.grad.any()
