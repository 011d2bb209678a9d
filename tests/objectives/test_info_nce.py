import math
from dataclasses import replace

import pytest
import torch

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import AllQueries, Relevance, RetrievalOutputs


def outputs_of(query: torch.Tensor, document: torch.Tensor, **changes) -> RetrievalOutputs:
    rows = len(query)
    group = len(document) // rows
    relevance = Relevance(
        query_ids=torch.arange(rows),
        document_ids=torch.arange(len(document)) + 100,
        owners=torch.arange(rows * group) // group,
        positives=group * torch.arange(rows)[:, None],
        known_positives=torch.full((rows, 1), -1),
    )
    return RetrievalOutputs(query, document, relevance, **changes)


def random(rows: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(
        torch.randn(rows, dim, generator=generator).double(), dim=1
    )


def test_a_value_worked_by_hand():
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    document = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = InfoNCE(temperature=0.5)(outputs_of(query, document)).loss
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_labels_that_no_query_brought_are_compared_as_worked_by_hand():
    """Scores 2, 1, 0, -1, of which the first two are positives: a plain softmax would cost 0.94019."""
    document = torch.tensor([[2.0], [1.0], [0.0], [-1.0]])
    outputs = outputs_of(torch.ones(1, 1), document)
    relevance = replace(
        outputs.relevance, owners=torch.full((4,), -1), positives=torch.tensor([[0, 1]])
    )
    costs = [
        float(
            InfoNCE(temperature=1.0, several_positives=kind)(
                replace(outputs, relevance=relevance)
            ).loss
        )
        for kind in ("decoupled", "average")
    ]
    assert costs == pytest.approx([(0.169846 + 0.407606) / 2, (0.440190 + 1.440190) / 2], abs=1e-6)


def test_a_positive_margin_is_what_a_positive_must_win_by():
    query = torch.tensor([[1.0, 0.0]])
    document = torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    outputs = outputs_of(query, document)
    without = InfoNCE(temperature=1.0)(outputs).loss
    with_margin = InfoNCE(temperature=1.0, positive_margin=0.3)(outputs).loss
    assert float(without) == pytest.approx(0.598139, abs=1e-6)
    assert float(with_margin) == pytest.approx(0.744397, abs=1e-6)


def test_hard_negatives_of_all_queries_are_candidates_unless_only_the_own_are_wanted():
    query, document = random(5, 8, 0), random(15, 8, 1)
    scores = query @ document.T / 0.1
    every = torch.logsumexp(scores, 1) - scores[torch.arange(5), 3 * torch.arange(5)]
    own = torch.stack([scores[i, 3 * i : 3 * i + 3] for i in range(5)])
    outputs = outputs_of(query, document)
    assert torch.isclose(InfoNCE(temperature=0.1)(outputs).loss, every.mean())
    alone = InfoNCE(temperature=0.1, negatives="own")(outputs).loss
    assert torch.isclose(alone, (torch.logsumexp(own, 1) - own[:, 0]).mean())


def test_the_joint_loss_in_all_directions_of_one_pair_is_log_two():
    directions = (
        "query_to_document",
        "document_to_query",
        "query_to_query",
        "document_to_document",
    )
    loss = InfoNCE(directions=directions)(outputs_of(random(1, 8, 0), random(1, 8, 1))).loss
    assert float(loss) == pytest.approx(math.log(2), abs=1e-9)


def test_a_learned_temperature_takes_the_place_of_the_fixed_one_and_gets_a_gradient():
    query, document = random(6, 8, 0), random(6, 8, 1)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    learned = InfoNCE(temperature=0.05)(outputs_of(query, document, temperature=temperature))
    fixed = InfoNCE(temperature=0.3)(outputs_of(query, document))
    assert torch.isclose(learned.loss, fixed.loss)
    learned.loss.backward()
    step = 1e-6
    above = InfoNCE(temperature=0.3 + step)(outputs_of(query, document)).loss
    below = InfoNCE(temperature=0.3 - step)(outputs_of(query, document)).loss
    assert float(temperature.grad) == pytest.approx(float(above - below) / (2 * step), rel=1e-5)
    assert "temperature" in learned.metrics


def test_accuracy_and_margin_are_those_of_the_scores():
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    document = torch.tensor([[0.5, 0.0], [1.0, 0.2]])
    metrics = InfoNCE()(outputs_of(query, document)).metrics
    assert float(metrics["accuracy"]) == 0.5
    assert float(metrics["margin"]) == pytest.approx(((0.5 - 1.0) + (0.2 - 0.0)) / 2, abs=1e-6)


def test_copies_of_a_query_on_other_ranks_are_known_by_their_ids():
    query, document, others = random(3, 8, 0), random(3, 8, 1), random(5, 8, 2)
    outputs = outputs_of(query, document)
    outputs.relevance.query_ids[:] = 7
    every = AllQueries(torch.cat([query, others]), torch.full((8,), 7), torch.full((8, 1), -1))
    plain = InfoNCE()(outputs).loss
    objective = InfoNCE(directions=("query_to_document", "query_to_query"))
    assert torch.isclose(objective(replace(outputs, all_queries=every)).loss, plain)
    unlike = replace(every, ids=torch.arange(8) + 7)
    assert not torch.isclose(objective(replace(outputs, all_queries=unlike)).loss, plain)
