"""Products with weights that were laid out before: the same numbers, for the layers of one model alone."""

import pytest
import torch
from torch import nn

from embedtrain.models.backbone import laid_out
from embedtrain.models.backbone.laid_out import LaidOutProducts, can_lay_out

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    not can_lay_out(CPU, 10**6), reason="this processor multiplies in another way"
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 24, bias=False)).eval()


@torch.no_grad()
def test_results_are_the_plain_ones_and_come_from_the_laid_out_weights(model):
    values = torch.randn(1, 700, 48)
    expected, alone = model(values), nn.functional.linear(values, torch.ones(3, 48))
    with LaidOutProducts(model) as products:
        torch.testing.assert_close(model(values), expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(nn.functional.linear(values, torch.ones(3, 48)), alone)
        for layer in (model[0], model[2]):
            products._weights.pop(id(layer.weight))
        assert torch.equal(model(values), expected)
    with LaidOutProducts(model):
        model[0].weight.mul_(2)  # what was laid out is not looked at again
        torch.testing.assert_close(model(values), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_layers_that_share_a_weight_add_their_own_bias_and_names_of_arguments_do_no_harm():
    first, second, third = nn.Linear(48, 96), nn.Linear(48, 96), nn.Linear(48, 96, bias=False)
    second.weight = third.weight = first.weight
    model, values = nn.ModuleList([first, second, third]), torch.randn(700, 48)
    expected = [layer(values) for layer in model]
    with LaidOutProducts(model):
        found = [layer(values) for layer in model]
        named = nn.functional.linear(input=values, weight=first.weight, bias=first.bias)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(named, expected[0], atol=1e-6, rtol=1e-5)


def test_gradients_and_other_numbers_are_left_alone(model):
    values = torch.randn(2, 48, requires_grad=True)
    with LaidOutProducts(model):
        model(values).sum().backward()
        assert values.grad.abs().max() > 0
        with torch.no_grad():
            assert nn.Linear(4, 4).double()(torch.ones(1, 4).double()).dtype == torch.float64


def test_few_tokens_and_half_precision_are_not_worth_it():
    assert not can_lay_out(CPU, laid_out.ENOUGH - 1)
    assert not can_lay_out(torch.device("meta"), 10**6)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_lay_out(CPU, 10**6)
