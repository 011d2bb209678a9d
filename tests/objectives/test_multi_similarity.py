import math
from dataclasses import replace

import pytest
import torch
from objective_toys import number
from sts_toys import pairs_of_vectors

from embedtrain.objectives.multi_similarity import MultiSimilarity


def classes(similarity: list[list[float]], labels: list[float]):
    document = torch.tensor(similarity, dtype=torch.float64).T.contiguous().requires_grad_()
    query = torch.eye(len(similarity), dtype=torch.float64)
    return pairs_of_vectors(query, document, labels)


def test_one_query_costs_what_the_formula_says() -> None:
    outputs = classes([[0.9, 0.6, 0.7], [0.1, 0.9, 0.3], [0.2, 0.4, 0.9]], [0.0, 0.0, 1.0])
    found = number(MultiSimilarity(margin=2.0)(outputs).loss)  # nothing is too easy to take part

    def cost(positives: list[float], negatives: list[float]) -> float:
        pulled = math.log(1 + sum(math.exp(-2 * (s - 0.5)) for s in positives)) / 2
        return pulled + math.log(1 + sum(math.exp(50 * (s - 0.5)) for s in negatives)) / 50

    expected = cost([0.9, 0.6], [0.7]) + cost([0.1, 0.9], [0.3]) + cost([0.9], [0.2, 0.4])
    assert found == pytest.approx(expected / 3)


def test_easy_pairs_have_no_gradient() -> None:
    outputs = classes([[0.9, 0.8, -0.5], [0.9, 0.8, -0.4], [-0.5, -0.4, 0.9]], [0.0, 0.0, 1.0])
    loss = MultiSimilarity()(outputs).loss
    loss.backward()
    assert number(loss) == 0
    assert not outputs.document.grad.any()


def test_a_copy_of_the_query_is_no_positive() -> None:
    outputs = classes([[0.5, 0.6], [0.7, 0.5]], [0.0, 0.0])
    relevance = replace(outputs.relevance, query_ids=outputs.relevance.document_ids)
    with_copies = MultiSimilarity()(replace(outputs, relevance=relevance))
    assert number(with_copies.loss) == 0  # no negatives: no positive is hard


def test_a_copy_of_the_query_leaves_the_other_positives() -> None:
    outputs = classes([[0.9, 0.6, 0.7], [0.1, 0.9, 0.3], [0.2, 0.4, 0.9]], [0.0, 0.0, 1.0])
    relevance = replace(outputs.relevance, query_ids=outputs.relevance.document_ids)
    found = MultiSimilarity(margin=2.0)(replace(outputs, relevance=relevance))

    def cost(positive: float, negative: float) -> float:
        pulled = math.log1p(math.exp(-2 * (positive - 0.5))) / 2
        return pulled + math.log1p(math.exp(50 * (negative - 0.5))) / 50

    expected = cost(0.6, 0.7) + cost(0.1, 0.3)  # query 2 has no positive but its copy
    assert number(found.loss) == pytest.approx(expected / 3)
