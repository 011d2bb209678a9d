import pytest
import torch
from objective_toys import number, outputs_of_pairs, outputs_of_scores

from embedtrain.objectives.adr_mse import ADRMSE


def test_the_hand_worked_example_and_its_scale() -> None:
    scores, grades = [2.0, 0.5, 1.0, -1.0], [1.0, 0.0, 2.0, 0.0]
    found = ADRMSE().for_pairs()(outputs_of_pairs(scores, grades)).loss
    assert number(found) == pytest.approx(0.507845, abs=1e-6)
    halved = ADRMSE(temperature=0.5).for_pairs()
    same = halved(outputs_of_pairs([score / 2 for score in scores], grades)).loss
    torch.testing.assert_close(same, found)


def test_scores_far_apart_in_the_right_order_cost_nothing() -> None:
    outputs = outputs_of_scores([[60.0, 0.0, 30.0]], [[9.0, 1.0, 2.0]])
    assert number(ADRMSE(temperature=1.0)(outputs).loss) == pytest.approx(0, abs=1e-12)
    turned = outputs_of_scores([[0.0, 60.0, 30.0]], [[9.0, 1.0, 2.0]])
    wrong = number(ADRMSE(temperature=1.0)(turned).loss)
    assert wrong == pytest.approx((4 / 1 + 4 / 2) / 3), "ranks 1 and 3 are swapped"


def test_only_the_order_of_the_teacher_matters() -> None:
    scores = [[0.9, 0.5, 0.1, 0.3]]
    losses = [
        ADRMSE()(outputs_of_scores(scores, [teacher])).loss
        for teacher in ([4.0, 3.0, 2.0, 1.0], [100.0, 0.3, 0.2, -5.0])
    ]
    assert torch.isclose(*losses)
