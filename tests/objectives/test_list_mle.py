import pytest
import torch
from objective_toys import number, outputs_of_pairs

from embedtrain.objectives.list_mle import ListMLE

SCORES = [2.0, 0.5, 1.0, -1.0]
GRADES = [1.0, 0.0, 2.0, 0.0]


def test_documents_alike_do_not_compete():
    loss = ListMLE().for_pairs()(outputs_of_pairs(SCORES, GRADES)).loss
    values = torch.tensor(SCORES, dtype=torch.float64)
    second = values[[0, 1, 3]].logsumexp(0) - values[0]
    assert number(loss) == pytest.approx(number(values.logsumexp(0) - values[2] + second))
    turned = ListMLE(weights="top").for_pairs()
    here = turned(outputs_of_pairs([2.0, 0.5, 1.0, -1.0], GRADES)).loss
    there = turned(outputs_of_pairs([2.0, -1.0, 1.0, 0.5], GRADES)).loss
    assert number(here) == pytest.approx(number(there)), "the order of a row plays no part"


def test_places_at_the_top_weigh_most():
    objective = ListMLE(weights="top").for_pairs()
    order = [3.0, 2.0, 1.0, 0.0]
    at_top = number(objective(outputs_of_pairs([1.0, 2.0, 0.0, -1.0], order)).loss)
    below = number(objective(outputs_of_pairs([2.0, 1.0, -1.0, 0.0], order)).loss)
    assert at_top > below
    long = outputs_of_pairs([0.0] * 2000, list(range(2000, 0, -1)))
    assert torch.isfinite(objective(long).loss), "2 to the power of the rank is not"


def test_positives_come_before_negatives_where_there_are_no_scores():
    values = torch.tensor(SCORES, dtype=torch.float64)
    loss = ListMLE().for_pairs()(outputs_of_pairs(SCORES, None)).loss
    assert number(loss) == pytest.approx(number(values.logsumexp(0) - values[0]))
