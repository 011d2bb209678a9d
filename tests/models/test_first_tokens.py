"""A last layer of first tokens alone gives what the whole layer gives, and the same gradients."""

import pytest
import torch
from pair_toys import pairs_of_lengths, save_classifier

from embedtrain.models.cross_encoder.build import load_cross_encoder
from embedtrain.models.edits.shrink import shrink_reranker

PAIRS = pairs_of_lengths((1, 1), (5, 3), (5, 3), (3, 20), (2, 30))


def outcome(model, texts, *, alone):
    """Return the states of first tokens, and the gradient of each weight by a sum of them."""
    model.zero_grad()
    model._first_alone = alone
    states = model.first_states(texts, packed=True)
    (
        states * torch.linspace(-1, 1, states.numel(), dtype=states.dtype).view_as(states)
    ).sum().backward()
    named = model.backbone.named_parameters()
    return states.detach(), {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm_roberta", "electra"])
@pytest.mark.parametrize("layers", [2, 1])
def test_states_and_gradients_are_those_of_the_whole_layer(family, layers, tmp_path):
    model = load_cross_encoder(str(save_classifier(tmp_path / family, family))).double().eval()
    if layers == 1:
        shrink_reranker(model, 1)
    assert model._first_alone
    texts = model.pairs_of(PAIRS)
    texts = texts.select(texts.lengths.argsort())
    seen = []
    stack = [module for name, module in model.named_modules() if name.endswith(".intermediate")]
    stack[-1].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    few, gradients = outcome(model, texts, alone=True)
    whole, expected = outcome(model, texts, alone=False)
    assert seen[0] < seen[1], "the last layer computes fewer tokens"
    torch.testing.assert_close(few, whole, rtol=1e-10, atol=1e-12)
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("family", ["distilbert", "mpnet", "deberta", "modernbert_mean"])
def test_layers_that_take_no_keys_from_elsewhere_and_other_poolings_are_left_alone(
    family, tmp_path
):
    model = load_cross_encoder(str(save_classifier(tmp_path / family, family)))
    assert not model._first_alone
