import pytest
import torch
import torch.nn.functional as F
from objective_toys import number, random_outputs
from sts_toys import pairs_of

from embedtrain.errors import UserError
from embedtrain.objectives.cosent import CoSENT


def test_two_pairs_cost_the_softplus_of_their_difference() -> None:
    outputs = pairs_of([0.7, 0.3], [0.0, 1.0])
    expected = F.softplus(torch.tensor(20 * (0.7 - 0.3), dtype=torch.float64))
    torch.testing.assert_close(CoSENT()(outputs).loss, expected)


def test_equal_labels_cost_nothing_and_have_no_gradient() -> None:
    outputs = pairs_of([0.7, 0.3, -0.2], [1.0, 1.0, 1.0])
    loss = CoSENT()(outputs).loss
    assert number(loss) == 0
    loss.backward()
    assert not outputs.document.grad.any()


def test_it_is_the_sum_over_all_ordered_pairs() -> None:
    similarity, labels = [0.9, 0.1, 0.4, 0.3], [0.5, 0.2, 0.2, 1.0]
    total = 1.0
    for low, a in zip(labels, similarity, strict=True):
        for high, b in zip(labels, similarity, strict=True):
            if low < high:
                total += float(torch.tensor(5 * (a - b)).exp())
    found = CoSENT(scale=5.0)(pairs_of(similarity, labels)).loss
    assert number(found) == pytest.approx(float(torch.tensor(total).log()), rel=1e-6)


def test_only_the_order_of_labels_counts() -> None:
    similarity = [0.9, 0.1, 0.4]
    one = CoSENT()(pairs_of(similarity, [0.1, 0.2, 0.3])).loss
    other = CoSENT()(pairs_of(similarity, [-5.0, 0.0, 100.0])).loss
    torch.testing.assert_close(one, other)


def test_late_interaction_is_scored_too() -> None:
    outputs = random_outputs("late_interaction")
    loss = CoSENT()(outputs).loss
    loss.backward()
    assert outputs.query.tokens.grad.any()


def test_rows_without_scores_are_refused() -> None:
    from dataclasses import replace

    outputs = random_outputs()
    bare = replace(outputs, relevance=replace(outputs.relevance, teacher_scores=None))
    with pytest.raises(UserError, match="columns"):
        CoSENT()(bare)
