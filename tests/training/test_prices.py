"""What entries cost follows a target."""

import pytest
import torch
from objective_toys import random_outputs
from pydantic import ValidationError

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.sparsity import Penalty, Sparsity
from embedtrain.training.prices import Prices


def objective(target: int | None) -> Sparsity:
    return Sparsity(inner=InfoNCE(), document=Penalty(weight=1.0, target=target))


def outputs():
    return random_outputs().changed(torch.relu, torch.relu)


def step(prices: Prices) -> torch.Tensor | None:
    priced = prices.priced(outputs(), 0)
    prices.step_done()
    return priced.price_factors


@pytest.mark.parametrize(("target", "rises"), [(1, True), (6, False)])
def test_the_price_rises_where_texts_have_too_many_entries_and_falls_where_too_few(target, rises):
    prices = Prices([objective(target)])
    factors = torch.stack([step(prices) for _ in range(5)])
    assert factors[0].tolist() == [1.0, 1.0]
    assert bool((factors[1:, 1] > factors[:-1, 1]).all()) is rises
    assert factors[:, 0].unique().tolist() == [1.0]  # queries have no target
    assert (factors[1:, 1] / factors[:-1, 1]).log().abs().max() <= 0.01 + 1e-9


def test_prices_go_on_from_what_a_checkpoint_kept():
    whole, first, second = (Prices([objective(1)]) for _ in range(3))
    for _ in range(4):
        step(whole)
    for _ in range(2):
        step(first)
    second.load(first.state())
    for _ in range(2):
        step(second)
    assert torch.equal(second.logarithms, whole.logarithms)


def test_a_step_that_is_done_again_counts_once():
    once, again = Prices([objective(1)]), Prices([objective(1)])
    again.priced(outputs(), 0)
    step(once)
    step(again)
    assert torch.equal(once.logarithms, again.logarithms)


def test_objectives_without_a_target_are_left_alone():
    assert step(Prices([objective(None)])) is None
    made, priced = outputs(), Sparsity(inner=InfoNCE(), document=Penalty(weight=3.0))
    twice = priced(made.changed(lambda x: x, lambda x: x))
    assert torch.equal(priced(made).loss, twice.loss)


def test_a_target_without_a_weight_is_refused():
    with pytest.raises(ValidationError, match="target needs a weight"):
        Penalty(target=10)
