import pytest
import torch
from objective_toys import number, outputs_of_scores

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.orthogonal_projection import OrthogonalProjection

SCORES = [[0.6, 0.2, 0.4], [0.9, -0.3, 0.1]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (0.4 + 0.5 * 0.3 + 0.1 + 0.5 * 0.2) / 2),
        ({"gamma": 2.0}, (0.4 + 2 * 0.3 + 0.1 + 2 * 0.2) / 2),
        # Both sides alike are twice the balanced mean of squares, .13 for the first query.
        ({"gamma": 1.0, "distance": "squared"}, (2 * 0.13 + 0.01 + (0.09 + 0.01) / 2) / 2),
    ],
)
def test_both_sides_are_means_by_hand(settings, expected):
    outputs = outputs_of_scores(SCORES, SCORES)
    assert number(OrthogonalProjection(**settings)(outputs).loss) == pytest.approx(expected)


def test_a_batch_costs_the_mean_of_its_single_samples():
    alone = [number(OrthogonalProjection()(outputs_of_scores([row], [row])).loss) for row in SCORES]
    whole = number(OrthogonalProjection()(outputs_of_scores(SCORES, SCORES)).loss)
    assert whole == pytest.approx(sum(alone) / 2, rel=1e-12)


def test_a_negative_on_either_side_is_pushed_to_a_right_angle_and_no_further():
    outputs = outputs_of_scores([[0.5, 0.3, -0.3]], [[0.0, 0.0, 0.0]])
    OrthogonalProjection()(outputs).loss.backward()
    assert outputs.document.grad[:, 0].tolist() == pytest.approx([-1.0, 0.25, -0.25])
    outputs = outputs_of_scores([[0.5, 0.0]], [[0.0, 0.0]])
    OrthogonalProjection(distance="squared")(outputs).loss.backward()
    assert outputs.document.grad[1, 0] == 0


def test_one_pair_alone_teaches_it_what_it_does_not_teach_a_softmax():
    outputs = outputs_of_scores([[0.5]], [[0.0]])
    (slope,) = torch.autograd.grad(OrthogonalProjection()(outputs).loss, outputs.document)
    assert slope[0, 0] == -1
    (slope,) = torch.autograd.grad(InfoNCE()(outputs).loss, outputs.document)
    assert slope[0, 0] == 0
