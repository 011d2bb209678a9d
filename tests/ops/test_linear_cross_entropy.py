import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.ops import linear_cross_entropy as module
from embedtrain.ops.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
)

FORMS = [linear_cross_entropy_reference, linear_cross_entropy]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(module, "CPU_TILE", 40)


def example(seed, tokens=13, vocabulary=9, dim=5, ignored=0.3):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, dim, generator=generator)
    weight = torch.randn(vocabulary, dim, generator=generator)
    bias = torch.randn(vocabulary, generator=generator)
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    labels[torch.rand(tokens, generator=generator) < ignored] = -100
    return hidden, weight, labels, bias


def loss_and_gradients(hidden, weight, labels, bias, form=linear_cross_entropy):
    inputs = [x if x is None else x.clone().requires_grad_() for x in (hidden, weight, bias)]
    loss = form(inputs[0], inputs[1], labels, inputs[2])
    wanted = [x for x in inputs if x is not None]
    return (loss, *torch.autograd.grad(loss * 3, wanted))


@pytest.mark.parametrize("form", FORMS)
def test_equal_logits_cost_the_logarithm_of_the_vocabulary(form):
    labels = torch.tensor([0, 3, 6])
    loss = form(torch.ones(3, 2), torch.ones(7, 2), labels)
    assert loss.item() == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_it_equals_linear_followed_by_cross_entropy(form):
    hidden, weight, labels, bias = (x.double() if x.is_floating_point() else x for x in example(1))
    loss = form(hidden, weight, labels, bias)
    expected = F.cross_entropy(F.linear(hidden, weight, bias), labels)
    torch.testing.assert_close(loss, expected)


@given(
    seed=st.integers(0, 2**16),
    sizes=st.tuples(*[st.integers(1, 20)] * 3),
    ignored=st.sampled_from([0.0, 0.5, 0.95]),
    biased=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_tiles_are_as_exact_as_the_reference(seed, sizes, ignored, biased):
    hidden, weight, labels, bias = example(seed, *sizes, ignored)
    bias = bias if biased else None
    double = (hidden.double(), weight.double(), labels, None if bias is None else bias.double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_TILE", 40)
        exact = loss_and_gradients(*double, linear_cross_entropy_reference)
        single = (hidden, weight, labels, bias)
        reference = loss_and_gradients(*single, linear_cross_entropy_reference)
        chunked = loss_and_gradients(*single)
    logits = hidden.abs() @ weight.abs().T + (0 if bias is None else bias.abs())
    # What the terms of the loss and of the three gradients are made of.
    sizes = (1 + logits.max(), weight.abs().max(), hidden.abs().max(), 1)
    for truth, size, earned, value in zip(exact, sizes, reference, chunked, strict=False):
        roundings = 4 * torch.finfo(value.dtype).eps * (size * (1 + logits.max()))
        assert (value - truth).abs().max() <= (earned - truth).abs().max() + roundings


def test_gradients_pass_gradcheck_in_float64():
    hidden, weight, labels, bias = example(2)
    inputs = [x.double().requires_grad_() for x in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(lambda h, w, b: linear_cross_entropy(h, w, labels, b), inputs)


@pytest.mark.parametrize("form", FORMS)
def test_unlabelled_rows_change_nothing_and_get_no_gradient(form):
    hidden, weight, labels, bias = example(3)
    before = loss_and_gradients(hidden, weight, labels, bias, form)
    hidden[labels == -100] = 77.0
    after = loss_and_gradients(hidden, weight, labels, bias, form)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert not after[1][labels == -100].any()


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_without_labels_costs_nothing_and_moves_nothing(form):
    hidden, weight, labels, bias = example(5)
    labels[:] = -100
    loss, *gradients = loss_and_gradients(hidden, weight, labels, bias, form)
    assert loss.item() == 0.0
    assert not any(gradient.any() for gradient in gradients)


def test_huge_logits_do_not_overflow():
    hidden, weight, labels, bias = example(7)
    loss, *gradients = loss_and_gradients(hidden * 1e3, weight * 1e3, labels, bias)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_gradient_that_nobody_wants_is_not_computed(missing):
    hidden, weight, labels, bias = example(8)
    inputs = [x.clone().requires_grad_(i != missing) for i, x in enumerate((hidden, weight, bias))]
    full = loss_and_gradients(hidden, weight, labels, bias)[1:]
    (linear_cross_entropy(inputs[0], inputs[1], labels, inputs[2]) * 3).backward()
    for i, (x, expected) in enumerate(zip(inputs, full, strict=True)):
        assert x.grad is None if i == missing else torch.equal(x.grad, expected)


def test_the_loss_may_be_differentiated_again_with_the_graph_kept():
    hidden, weight, labels, bias = example(9)
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, labels, bias)
    first = torch.autograd.grad(loss * 5, hidden, retain_graph=True)[0]
    second = torch.autograd.grad(loss * 5, hidden)[0]
    assert torch.equal(first, second)


@pytest.mark.parametrize("form", FORMS)
def test_low_precision_inputs_are_accumulated_in_float32(form):
    hidden, weight, labels, bias = example(10, dim=64)
    low = (hidden.bfloat16(), weight.bfloat16(), labels, bias.bfloat16())
    loss, *gradients = loss_and_gradients(*low, form)
    exact = linear_cross_entropy(low[0].double(), low[1].double(), labels, low[3].double())
    assert loss.dtype == torch.float32
    assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_autocast_does_not_lower_the_precision():
    arguments = example(11)
    plain = linear_cross_entropy(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(linear_cross_entropy(*arguments), plain)


def test_repeating_gives_the_same_bits():
    first, second = (loss_and_gradients(*example(13)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
