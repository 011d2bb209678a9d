import math

import pytest
import torch
from objective_toys import number, outputs_of_scores, random_outputs

from embedtrain.objectives.rank_net import RankNet


def test_a_value_worked_by_hand():
    outputs = outputs_of_scores([[0.0, 1.0, 0.5]], [[2.0, 1.0, 1.0]])
    expected = (math.log1p(math.exp(1.0)) + math.log1p(math.exp(0.5))) / 2
    result = RankNet(temperature=1.0)(outputs)
    assert number(result.loss) == pytest.approx(expected), "documents 1 and 2 are alike"
    assert number(result.metrics["pair_accuracy"]) == 0


def test_ndcg_weighs_pairs_by_what_their_swap_costs():
    outputs = outputs_of_scores([[3.0, 2.0, 1.0]], [[2.0, 0.0, 1.0]])
    gains, discounts = [1.0, 0.0, 0.5], [1.0, 1 / math.log2(3), 0.5]
    ideal = 1.0 + 0.5 / math.log2(3)
    total = weighted = 0.0
    for a, b in ((0, 1), (0, 2), (2, 1)):
        weight = abs((gains[a] - gains[b]) * (discounts[a] - discounts[b])) / ideal
        difference = [3.0, 2.0, 1.0][a] - [3.0, 2.0, 1.0][b]
        total += weight
        weighted += weight * math.log1p(math.exp(-difference))
    loss = RankNet(temperature=1.0, weights="ndcg")(outputs).loss
    assert number(loss) == pytest.approx(weighted / total)


def test_mrr_weighs_pairs_by_the_students_reciprocal_ranks():
    """Demonstrations in UDR: the teacher ranks them 2, 3, 1, 4, relevance is the reciprocal rank."""
    outputs = outputs_of_scores([[2.0, 0.5, 1.0, -1.0]], [[1 / 2, 1 / 3, 1.0, 1 / 4]])
    loss = RankNet(temperature=1.0, weights="mrr")(outputs).loss
    assert number(loss) == pytest.approx(0.159146, abs=1e-6)


def test_only_the_order_of_the_teacher_matters():
    scores = [[0.9, 0.5, 0.1, 0.3]]
    losses = [
        RankNet()(outputs_of_scores(scores, [teacher])).loss
        for teacher in ([4.0, 3.0, 2.0, 1.0], [100.0, 0.3, 0.2, -5.0])
    ]
    assert torch.isclose(*losses)


def test_without_a_teacher_positives_come_before_negatives():
    from dataclasses import replace

    outputs = random_outputs("late_interaction")
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(5)
    given = replace(outputs, relevance=replace(outputs.relevance, teacher_scores=labels))
    none = replace(outputs, relevance=replace(outputs.relevance, teacher_scores=None))
    assert torch.isclose(RankNet()(given).loss, RankNet()(none).loss)
