from dataclasses import replace

import pytest
import torch
from objective_toys import number, random_outputs
from sts_toys import pairs_of_vectors

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.supervised_contrast import SupervisedContrast
from embedtrain.types import RetrievalOutputs


def labelled(labels: list[float]) -> RetrievalOutputs:
    """Texts that stand on both sides, each with a label."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(labels), 5, generator=generator, dtype=torch.float64)
    unit = torch.nn.functional.normalize(vectors, dim=1)
    outputs = pairs_of_vectors(unit, unit.clone().requires_grad_(), labels)
    ids = torch.arange(len(labels)) + 50
    return replace(outputs, relevance=replace(outputs.relevance, query_ids=ids, document_ids=ids))


def naive(vectors: torch.Tensor, labels: list[float], temperature: float) -> float:
    """SupCon as it is defined, anchor by anchor; those without a positive are dropped."""
    total = 0.0
    for i, own in enumerate(labels):
        positives = [j for j, other in enumerate(labels) if other == own and j != i]
        if not positives:
            continue
        scores = {
            j: float(vectors[i] @ vectors[j]) / temperature for j in range(len(labels)) if j != i
        }
        below = torch.tensor(list(scores.values()), dtype=torch.float64).logsumexp(0)
        total += sum(float(below) - scores[p] for p in positives) / len(positives)
    return total / len(labels)


def test_it_is_supcon_of_labels_with_singletons_dropped() -> None:
    labels = [0.0, 1.0, 0.0, 2.0, 0.0, 1.0]
    outputs = labelled(labels)
    result = SupervisedContrast(alike="labels", temperature=0.3)(outputs)
    expected = naive(outputs.query, labels, 0.3)
    assert number(result.loss) == pytest.approx(expected, rel=1e-12)
    assert number(result.metrics["alone_ratio"]) == pytest.approx(1 / 6)


def test_texts_that_all_differ_cost_nothing_and_give_no_gradient() -> None:
    outputs = labelled([0.0, 1.0, 2.0, 3.0])
    loss = SupervisedContrast(alike="labels")(outputs).loss
    loss.backward()
    assert number(loss) == 0
    assert not outputs.document.grad.any()


def test_rows_with_one_positive_each_are_plain_info_nce() -> None:
    outputs = random_outputs()
    relevance = replace(outputs.relevance, known_positives=torch.full((5, 1), -1))
    relevance = replace(relevance, document_ids=torch.arange(20) + 100)
    outputs = replace(outputs, relevance=relevance)
    found = SupervisedContrast(temperature=0.2)(outputs).loss
    torch.testing.assert_close(found, InfoNCE(temperature=0.2)(outputs).loss)


def test_a_known_positive_in_the_batch_is_one_more_positive() -> None:
    outputs = random_outputs()  # document 8 is a known positive of query 0; 5 repeats document 0
    scores = (outputs.query[0] @ outputs.document.T).detach() / 0.2
    logs = scores - scores.logsumexp(0)
    first = -(logs[0] + logs[5] + logs[8]) / 3
    alone = replace(
        outputs,
        query=outputs.query[:1],
        relevance=replace(
            outputs.relevance,
            query_ids=outputs.relevance.query_ids[:1],
            positives=outputs.relevance.positives[:1],
            known_positives=outputs.relevance.known_positives[:1],
        ),
    )
    torch.testing.assert_close(SupervisedContrast(temperature=0.2)(alone).loss, first)


def test_the_querys_own_text_is_neither_positive_nor_negative() -> None:
    outputs = labelled([0.0, 0.0, 1.0])
    moved = replace(outputs, document=outputs.document.detach().clone())
    loss = SupervisedContrast(alike="labels")(moved).loss
    moved.document[2] = -moved.document[2]
    other = SupervisedContrast(alike="labels")(moved)
    assert number(other.loss) != number(loss), "it is a candidate of the others"
    single = replace(
        moved,
        query=moved.query[:1],
        relevance=replace(
            moved.relevance, query_ids=moved.relevance.query_ids[:1],
            positives=moved.relevance.positives[:1],
            known_positives=moved.relevance.known_positives[:1],
        ),
    )  # fmt: skip
    before = SupervisedContrast(alike="labels")(single).loss
    moved.document[0] = -moved.document[0]
    assert number(SupervisedContrast(alike="labels")(single).loss) == number(before)
