import pytest
import torch
from objective_toys import number, outputs_of_scores, random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.margin_mse import MarginMSE


def test_a_value_worked_by_hand():
    outputs = outputs_of_scores([[1.0, 0.5, 0.0], [0.2, 0.1, 0.4]], [[3, 1, 1], [1, 0, 0]])
    first = ((0.5 - 2) ** 2 + (1.0 - 2) ** 2) / 2
    second = ((0.1 - 1) ** 2 + (-0.2 - 1) ** 2) / 2
    result = MarginMSE()(outputs)
    assert number(result.loss) == pytest.approx((first + second) / 2)
    assert number(result.metrics["margin"]) == pytest.approx((0.5 + 1.0 + 0.1 - 0.2) / 4)
    assert number(result.metrics["teacher_margin"]) == pytest.approx((2 + 2 + 1 + 1) / 4)


def test_a_constant_added_to_a_query_of_the_teacher_changes_nothing():
    scores, teacher = [[0.9, 0.5, 0.1], [0.2, 0.3, 0.4]], [[3.0, 1.0, 0.5], [1.0, 0.0, 2.0]]
    shifted = [[value + 5 for value in teacher[0]], [value - 2 for value in teacher[1]]]
    losses = [MarginMSE()(outputs_of_scores(scores, t)).loss for t in (teacher, shifted)]
    assert torch.isclose(*losses)


def test_scales_multiply_the_margins():
    outputs = outputs_of_scores([[0.5, 0.0]], [[8.0, -2.0]])
    steep = MarginMSE(scale=20.0)(outputs)
    assert number(steep.loss) == pytest.approx(0)
    assert number(steep.metrics["margin"]) == pytest.approx(0.5), "in the model's units"
    scaled = MarginMSE(teacher_scale=0.05)(outputs)
    assert number(scaled.loss) == pytest.approx(0)
    assert number(scaled.metrics["teacher_margin"]) == pytest.approx(10.0), "in the teacher's units"


def test_late_interaction_scores_are_compared_like_dense_ones():
    assert torch.isfinite(MarginMSE()(random_outputs("late_interaction")).loss)


def test_rows_without_negatives_are_refused():
    with pytest.raises(UserError, match="needs hard negatives"):
        MarginMSE()(outputs_of_scores([[1.0]], [[1.0]]))
