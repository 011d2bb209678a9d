import math

import pytest
from objective_toys import number, outputs_of_scores, random_outputs

from embedtrain.objectives.pointwise_distillation import PointwiseDistillation


def test_a_value_worked_by_hand():
    outputs = outputs_of_scores([[1.0, 0.5]], [[2.0, -1.0]])
    loss = PointwiseDistillation(weight=0.25, scale=2.0, bias=-1.0)(outputs).loss
    labels = math.log1p(math.exp(-1.0)) + math.log(2)
    errors = (1.0 - 2.0) ** 2 + (0.0 + 1.0) ** 2
    assert number(loss) == pytest.approx((0.75 * labels + 0.25 * errors) / 2)


def test_the_teacher_alone_ignores_labels_and_can_be_met():
    outputs = outputs_of_scores([[0.9, 0.1]], [[8.0, -8.0]])
    assert number(PointwiseDistillation(weight=1.0)(outputs).loss) == pytest.approx(0)


def test_several_vectors_per_text_are_scored_too():
    assert number(PointwiseDistillation()(random_outputs("late_interaction")).loss) > 0
