"""The interaction head: pairs, all pairs and one by one agree, and each task trains its own branch."""

import pytest
import torch

from embedtrain.models.dense.pair_head import ComparisonHead, InteractionConfig, InteractionHead
from embedtrain.ops.interaction import interaction_features, interaction_pairs, interaction_scores


@pytest.fixture
def head():
    torch.manual_seed(0)
    return InteractionHead(4, InteractionConfig(hidden=6)).double()


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(1)
    query, document = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    return query[:3], document


@pytest.mark.parametrize("task", ["retrieval", "similarity"])
def test_all_pairs_at_once_equal_the_network_on_each_pair(head, vectors, task):
    query, document = vectors
    found = interaction_scores(head.weights, query, document, task)
    branch = getattr(head, task)
    for row, a in enumerate(query):
        for column, b in enumerate(document):
            features = branch(head.hidden(torch.cat([a, b])).relu()).relu()
            torch.testing.assert_close(found[row, column], features @ head.output)


def test_chosen_pairs_equal_those_of_all(head, vectors):
    query, document = vectors
    owners = torch.tensor([2, 0, 0, 1, 2])
    every = interaction_scores(head.weights, query, document)
    found = interaction_pairs(head.weights, query, document, owners)
    torch.testing.assert_close(found, every[owners, torch.arange(5)])
    features = interaction_features(head.weights, query, document, owners)
    torch.testing.assert_close(features @ head.output, found)


def test_a_network_that_compares_reads_vectors_products_and_differences(vectors):
    query, document = vectors
    head = ComparisonHead(4, InteractionConfig(features="comparisons", hidden=6)).double()
    torch.nn.init.constant_(head.output_bias, 0.5)
    owners = torch.tensor([2, 0, 0, 1, 2])
    found = interaction_scores(head.weights, query, document)
    for row, a in enumerate(query):
        for column, b in enumerate(document):
            read = torch.cat([a, b, a * b, (a - b).abs()])
            expected = head.hidden(read).relu() @ head.output + 0.5
            torch.testing.assert_close(found[row, column], expected)
    chosen = interaction_pairs(head.weights, query, document, owners)
    torch.testing.assert_close(chosen, found[owners, torch.arange(5)])


def test_the_order_of_query_and_document_matters(head, vectors):
    query, document = vectors
    there = interaction_scores(head.weights, query, document)
    back = interaction_scores(head.weights, document, query).T
    assert (there - back).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("task", "other"), [("retrieval", "similarity"), ("similarity", "retrieval")]
)
def test_a_task_leaves_the_other_branch_alone(head, vectors, task, other):
    interaction_scores(head.weights, *vectors, task).sum().backward()
    assert getattr(head, other).weight.grad is None
    assert getattr(head, task).weight.grad.abs().max() > 0
