"""The way from the start to trained weights: its ends are exact, and the nearest good point is taken."""

import pytest
import torch

from embedtrain.workflows.select.line import Point, best_of, first_good, mixed, walk

START = {"backbone.weight": torch.tensor([0.1, 0.3, -7.0]), "ids": torch.tensor([1, 2])}
TRAINED = {"backbone.weight": torch.tensor([0.7, -0.3, 1e-9]), "ids": torch.tensor([1, 2])}


def point(alpha, *scores, **guards):
    return Point(f"{alpha}", list(scores), alpha, guards)


def test_the_ends_are_the_very_weights_and_the_middle_their_mean():
    for alpha, end in ((0.0, START), (1.0, TRAINED)):
        assert torch.equal(mixed(START, TRAINED, alpha)["backbone.weight"], end["backbone.weight"])
    middle = mixed(START, TRAINED, 0.5)["backbone.weight"]
    assert torch.allclose(middle, torch.tensor([0.4, 0.0, -3.5]))


def test_what_the_start_lacks_is_the_trained_models_all_the_way():
    head = {"projection.weight": torch.eye(2)}
    wide = {"backbone.weight": torch.ones(4)}
    assert torch.equal(mixed(START, TRAINED | head, 0.0)["projection.weight"], torch.eye(2))
    assert torch.equal(mixed(START, wide, 0.25)["backbone.weight"], torch.ones(4))


@pytest.mark.parametrize(
    ("top", "tried"),
    [
        (0.0, [0, 0.125, 0.25, 0.5, 0.75, 1]),
        (0.5, [0, 0.25, 0.375, 0.5, 0.625, 0.75, 1]),
        (1.0, [0, 0.25, 0.5, 0.75, 0.875, 1]),
    ],
)
def test_the_line_is_refined_around_its_best(top, tried):
    found = walk(lambda alpha: point(alpha, 1 - abs(alpha - top)))
    assert [one.alpha for one in found] == tried


def test_nearer_to_the_start_is_taken_where_the_data_cannot_tell():
    points = [
        point(0.0, 0.1, 0.2, 0.1, 0.2),
        point(0.5, 0.5, 0.9, 0.6, 0.5),
        point(1.0, 0.6, 0.6, 0.7, 0.7),
    ]
    assert first_good(points, 1.0).alpha == 0.5, "0.025 less, with an error of 0.11"
    assert first_good(points, 0.0).alpha == 1.0
    assert first_good(points, 10.0).alpha == 0.5, "the start is worse on every query"
    assert first_good([*points[:2], point(1.0, 0.6, 1.0, 0.7, 0.6)], 1.0).alpha == 1.0


def test_from_the_other_end_the_furthest_point_is_taken_that_lacks_no_more():
    points = [
        point(0.0, 0.1, 0.2, 0.1, 0.2),
        point(0.5, 0.6, 0.9, 0.6, 0.6),
        point(1.0, 0.7, 0.6, 0.7, 0.6),
    ]
    assert first_good(points[::-1], 1.0).alpha == 1.0, "0.025 less, with an error of 0.09"
    assert first_good(points[::-1], 0.0).alpha == 0.5


def test_a_guarded_loss_of_a_point_is_no_choice():
    points = [
        point(0.0, 0.1, 0.1, law=0.0),
        point(0.5, 0.4, 0.4, law=-0.01),
        point(1.0, 0.9, 0.9, law=-0.02),
    ]
    assert best_of(points).alpha == first_good(points, 0.0).alpha == 0.5
