import math

import pytest
from objective_toys import number
from sts_toys import pairs_of

from embedtrain.objectives.pro import PRO


def test_two_pairs_cost_the_softmax_of_their_weighted_difference() -> None:
    weight = 0.7
    expected = -math.log(1 / (1 + math.exp((0.1 - 0.3) * weight / 0.05)))
    assert number(PRO()(pairs_of([0.3, 0.1], [0.9, 0.2])).loss) == pytest.approx(expected)


def test_it_equals_a_loop_over_the_sorted_pairs() -> None:
    similarity, labels = [0.9, 0.1, 0.4, 0.3, 0.2], [0.5, 0.2, 0.2, 1.0, 0.9]
    order = sorted(range(5), key=lambda i: -labels[i])
    s, y = [similarity[i] for i in order], [labels[i] for i in order]
    losses = []
    for k in range(5):
        tail = [j for j in range(k + 1, 5) if y[k] - y[j] > 1e-6]
        if tail:
            own = s[k] / 0.05 * max(y[k] - y[j] for j in tail)
            others = [s[j] / 0.05 * (y[k] - y[j]) for j in tail]
            losses.append(math.log(sum(map(math.exp, [own, *others]))) - own)
    found = number(PRO()(pairs_of(similarity, labels)).loss)
    assert found == pytest.approx(sum(losses) / len(losses))


def test_equal_labels_cost_nothing() -> None:
    outputs = pairs_of([0.3, 0.8], [0.4, 0.4])
    loss = PRO()(outputs).loss
    loss.backward()
    assert number(loss) == 0
    assert not outputs.document.grad.any()
