"""Networks that queries bring along: by hand, and against a network that is built for each query."""

import pytest
import torch
from torch import nn

from embedtrain.interaction_types import QueryNetwork
from embedtrain.ops.interaction import interaction_pairs, interaction_scores


def numbers(form, generator=None):
    generator = generator or torch.Generator().manual_seed(0)
    return torch.randn(3, form.num_weights, generator=generator, dtype=torch.float64)


def by_itself(form, weights, document):
    """Build a query's network out of modules, and run it on one document."""
    dim, state = form.dim, document
    parts = weights.split([dim * dim, dim] * form.num_layers + [dim])
    for layer in range(form.num_layers):
        linear = nn.Linear(dim, dim).double()
        linear.weight.data, linear.bias.data = (
            parts[2 * layer].view(dim, dim).T,
            parts[2 * layer + 1],
        )
        norm = nn.LayerNorm(dim, elementwise_affine=False)
        inner = nn.Sequential(linear, nn.ReLU(), norm)(state)
        state = inner if layer == form.num_layers - 1 else inner + state
    return state @ parts[-1]


@pytest.mark.parametrize(("layers", "expected"), [(1, 0.0), (2, 1.0)])
def test_layers_of_ones_by_hand(layers, expected):
    identity, zeros = torch.eye(2, dtype=torch.float64).flatten(), torch.zeros(2).double()
    last = torch.tensor([[1.0, 1.0], [1.0, 2.0]][layers - 1]).double()
    query = torch.cat([*(identity, zeros) * layers, last])[None]
    found = interaction_scores(QueryNetwork(2, layers), query, torch.tensor([[1.0, 2.0]]).double())
    assert found.item() == pytest.approx(expected, abs=1e-4)


def test_without_layers_it_is_the_inner_product():
    query, document = torch.randn(2, 4, 5, dtype=torch.float64).unbind()
    found = interaction_scores(QueryNetwork(5, 0), query, document)
    torch.testing.assert_close(found, query @ document.T, rtol=0, atol=1e-14)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_all_pairs_at_once_equal_each_querys_own_network(layers):
    form = QueryNetwork(4, layers)
    query = numbers(form)
    document = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = interaction_scores(form, query, document)
    expected = torch.stack([by_itself(form, a, b) for a in query for b in document]).view(3, 5)
    torch.testing.assert_close(found, expected)
    owners = torch.tensor([2, 0, 2, 1, 2])
    some = interaction_pairs(form, query, document, owners)
    torch.testing.assert_close(some, expected[owners, torch.arange(5)])


def test_gradients_of_pairs_are_those_of_finite_differences():
    form = QueryNetwork(2, 2)
    query = numbers(form)[:2].requires_grad_()
    document = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    document.requires_grad_()
    owners = torch.tensor([1, 0, 1])
    assert torch.autograd.gradcheck(
        lambda a, b: interaction_pairs(form, a, b, owners), (query, document)
    )
