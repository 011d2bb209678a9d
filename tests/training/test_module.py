import pytest
import torch
from distributed_cases import Case, train_case

from embedtrain.training import trained_module
from embedtrain.training.module import suspected_false_negatives
from embedtrain.types import Relevance, RetrievalOutputs


def test_negatives_near_the_positive_are_suspected_and_known_positives_are_not():
    query = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    document = torch.tensor([[0.8, 0.0], [0.8, 0.1], [0.77, 0.0], [0.5, 0.0]])
    relevance = Relevance(
        query_ids=torch.tensor([1, 2]),
        document_ids=torch.tensor([10, 11, 12, 13]),
        owners=torch.tensor([0, 1, 0, 1]),
        positives=torch.tensor([[0], [1]]),
        known_positives=torch.tensor([[10, 11], [11, -1]]),
    )
    share = suspected_false_negatives(RetrievalOutputs(query, document, relevance))
    # Query 0: negatives 12, 13, of which 12 (0.77 > 0.76). Query 1: 10, 12, 13, of which 10 and 12.
    assert float(share) == pytest.approx(3 / 5)


def test_each_micro_batch_draws_dropout_of_its_own_and_the_first_writes_the_log(toys, monkeypatch):
    drawn, of_step = [], trained_module.step_seed

    def seed(seed: int, step: int, micro_batch: int) -> int:
        drawn.append((step, micro_batch))
        return of_step(seed, step, micro_batch)

    monkeypatch.setattr(trained_module, "step_seed", seed)
    found = train_case(Case(accumulate=2).alone, toys)
    places = list(dict.fromkeys(drawn))
    assert places == [(step, number) for step in range(3) for number in range(2)]
    assert len({of_step(0, *place) for place in places}) == 6
    assert len(found["losses"]) == 3
