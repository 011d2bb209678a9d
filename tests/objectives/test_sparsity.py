"""What entries of sparse vectors cost, against numbers worked by hand."""

from dataclasses import replace

import pytest
import torch
from live_memory import LiveMemory
from objective_toys import GROUP, random_outputs, relevance_of
from pydantic import ValidationError

from embedtrain.errors import UserError
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.objectives.sparsity import Penalty, Sparsity, penalty
from embedtrain.objectives.weighted_sum import WeightedSum
from embedtrain.ops.chosen_rows import chosen_rows
from embedtrain.ops.word_activity import word_activity
from embedtrain.types import RetrievalOutputs

INNER = InfoNCE(temperature=1.0)
ROWS = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]], dtype=torch.float64)


def priced(rows: torch.Tensor, **settings: object) -> tuple[float, list[list[float]]]:
    rows, config = rows.clone().requires_grad_(), Penalty(weight=1.0, **settings)
    value = penalty(config, word_activity(rows, config.more_than))
    (gradient,) = torch.autograd.grad(value, rows)
    return value.item(), gradient.tolist()


@pytest.mark.parametrize(
    ("settings", "value", "gradient"),
    [
        ({"kind": "flops"}, 5.0, [[2.0, 0.0, 1.0], [2.0, 0.0, 1.0]]),
        ({"kind": "l1"}, 3.0, [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]),
        ({"kind": "flops", "more_than": 1}, 1.25, [[0.5, 0.0, 1.0], [0.0, 0.0, 0.0]]),
    ],
)
def test_penalties_have_the_values_and_gradients_worked_by_hand(settings, value, gradient):
    assert priced(ROWS, **settings) == (value, gradient)


def test_flops_of_parts_do_not_average_to_that_of_the_whole():
    parts = [priced(row[None])[0] for row in ROWS]
    assert parts == [5.0, 9.0]
    variance = torch.stack([*ROWS]).var(0, correction=0).sum().item()
    assert sum(parts) / 2 == priced(ROWS)[0] + variance == 7.0


@pytest.mark.parametrize(
    ("share", "charged"), [(0.05, 0.02162), (0.1, 0.5), (0.2, 0.99122), (0.5, 1.0)]
)
def test_rare_words_cost_next_to_nothing_under_df_flops(share, charged):
    rows = torch.zeros(20, 1, dtype=torch.float64)
    rows[: round(20 * share)] = 1 / share  # the mean is 1
    assert priced(rows, kind="df_flops")[0] == pytest.approx(charged**2, abs=3e-5)
    assert priced(0 * rows, kind="df_flops") == (0.0, [[0.0]] * 20)


def outputs() -> RetrievalOutputs:
    made = random_outputs()
    return made.changed(torch.relu, torch.relu)


def test_both_sides_and_their_product_are_added_to_the_inner_loss():
    queries = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    made = replace(outputs(), query=queries, document=ROWS)
    free = type("Free", (InfoNCE,), {"__call__": lambda _, o: INNER_ZERO})
    objective = Sparsity.model_construct(
        inner=free(), query=Penalty(kind="l1", weight=2.0), document=Penalty(weight=10.0), joint_weight=100.0,
        warmup_ratio=0.5,
    )  # fmt: skip
    assert objective(made).loss.item() == 2 * 1 + 10 * 5 + 100 * 1.5


INNER_ZERO = type("Result", (), {"loss": torch.zeros(()), "metrics": {}})()


def test_the_price_rises_quadratically_with_the_share_of_steps():
    objective = Sparsity(inner=INNER, document=Penalty(weight=0.4), warmup_ratio=0.1)
    prices = [0.4 * objective.ramp((step + 1) / 100) for step in (0, 4, 9, 50)]
    assert prices == pytest.approx([0.004, 0.1, 0.4, 0.4])
    assert objective.ramp(None) == 1


def test_means_over_all_ranks_take_the_place_of_the_batches_own():
    made, objective = outputs(), Sparsity(inner=INNER, query=Penalty(weight=1.0))
    assert objective.counts_query_words == 0
    other = word_activity(ROWS.new_ones(1, made.query.shape[1]))
    found = objective(replace(made, query_words=other)).loss - INNER(made).loss
    assert found.item() == pytest.approx(made.query.shape[1])


def test_a_price_of_nothing_and_several_vectors_per_text_are_refused():
    with pytest.raises(ValidationError, match="nothing costs anything"):
        Sparsity(inner=INNER)
    with pytest.raises(UserError, match="kind: sparse"):
        Sparsity(inner=INNER, document=Penalty(weight=1.0))(random_outputs("late_interaction"))


def test_entries_are_priced_once():
    once = Sparsity(inner=INNER, document=Penalty(weight=1.0, target=9))
    for twice in (
        lambda: Sparsity(inner=once, query=Penalty(weight=1.0)),
        lambda: Sparsity(inner=WeightedSum(objectives=(INNER, once)), query=Penalty(weight=1.0)),
        lambda: Matryoshka(inner=WeightedSum(objectives=(once, once)), dims=(2,)),
    ):
        with pytest.raises(ValidationError, match="priced twice"):
            twice()
    assert WeightedSum(objectives=(INNER, once)).target_entries == (None, 9)


def test_a_step_holds_vectors_and_their_gradients_once_and_little_beside_them(monkeypatch):
    monkeypatch.setattr("embedtrain.ops.infonce.plan.FEWEST_ROWS", 8)
    monkeypatch.setattr("embedtrain.ops.infonce.plan.TILE_BYTES", 8)
    monkeypatch.setattr("embedtrain.ops.word_activity.COUNTED", 2**14)
    objective = Sparsity(inner=INNER, query=Penalty(weight=1.0), document=Penalty(weight=1.0))
    num, weight = 64, torch.ones(2000, requires_grad=True)
    every = torch.arange(num * (1 + GROUP)).flip(0)

    def encode() -> RetrievalOutputs:
        parts = [torch.rand(num, 2000).mul_(weight.detach()) * weight for _ in range(1 + GROUP)]
        query, document = chosen_rows(parts, every[:num], every[num:])
        return RetrievalOutputs(query, document, relevance_of(num))

    with LiveMemory() as live:
        objective(encode()).loss.backward()
    # What the multiplication keeps beside its result is once more the vectors.
    assert live.peak < 3.5 * 4 * 2000 * len(every)
