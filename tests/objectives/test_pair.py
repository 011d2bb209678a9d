import math
from dataclasses import replace

import pytest
import torch
from objective_toys import GROUP, number, random_outputs, relevance_of

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.pair import Pair
from embedtrain.types import RetrievalOutputs


def test_without_the_document_centric_part_it_is_infonce():
    outputs = random_outputs()
    loss = Pair(alpha=0.0, temperature=0.1, negatives="own")(outputs).loss
    assert torch.isclose(loss, InfoNCE(temperature=0.1, negatives="own")(outputs).loss)


def test_a_value_worked_by_hand():
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    document = torch.tensor([[0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    outputs = RetrievalOutputs(query, document, relevance_of(1, 2))
    loss = Pair(alpha=1.0, temperature=1.0)(outputs).loss
    assert number(loss) == pytest.approx(math.log(1 + math.exp(0.8 - 0.6)))


@pytest.mark.parametrize("kind", ["dense", "late_interaction"])
def test_the_document_centric_part_moves_the_query_by_its_positive_alone(kind):
    outputs = random_outputs(kind)
    vectors = outputs.query if kind == "dense" else outputs.query.tokens
    Pair(alpha=1.0, temperature=0.2)(outputs).loss.backward()
    if kind == "dense":
        positives = outputs.document[outputs.relevance.positives[:, 0]].detach()
        along = (vectors.grad * positives).sum(1).abs()
        assert torch.allclose(along, vectors.grad.norm(dim=1))
    assert number(vectors.grad.abs().min()) > 0


def test_known_positives_are_no_negatives_of_the_positive():
    outputs = random_outputs()
    known = outputs.relevance.known_positives.clone()
    known[:] = outputs.relevance.document_ids[5]
    spared = replace(outputs, relevance=replace(outputs.relevance, known_positives=known))
    Pair(alpha=1.0)(spared).loss.backward()
    assert number(outputs.document.grad[5].abs().max()) == 0


def test_own_negatives_alone_stand_against_the_positive_where_it_was_asked_for():
    outputs = random_outputs()
    objective = Pair(alpha=1.0, temperature=0.2, negatives="own")
    units = outputs.document.detach().view(5, GROUP, -1)
    scores = (units[:, :1] * units).sum(2) / 0.2  # of each positive with its group
    positive = (outputs.query.detach() * units[:, 0]).sum(1) / 0.2
    kept = torch.cat([positive[:, None], scores[:, 1:]], 1)
    ids, answers = outputs.relevance.document_ids.view(5, GROUP), outputs.relevance.answers
    known = (ids[:, 1:, None] == answers[:, None]).any(2)
    kept[:, 1:] = kept[:, 1:].masked_fill(known, -torch.inf)
    expected = (kept.logsumexp(1) - positive).mean()
    torch.testing.assert_close(objective(outputs).loss.detach(), expected)
