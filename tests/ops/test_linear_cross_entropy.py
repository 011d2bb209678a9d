import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.errors import UserError
from embedtrain.ops import linear_cross_entropy as module
from embedtrain.ops.linear_cross_entropy import linear_cross_entropy

BACKENDS = ["reference", "chunked"]


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


def loss_and_gradients(hidden, weight, labels, bias, **options):
    inputs = [x if x is None else x.clone().requires_grad_() for x in (hidden, weight, bias)]
    loss = linear_cross_entropy(inputs[0], inputs[1], labels, inputs[2], **options)
    wanted = [x for x in inputs if x is not None]
    return (loss, *torch.autograd.grad(loss * 3, wanted))


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_logits_cost_the_logarithm_of_the_vocabulary(backend):
    labels = torch.tensor([0, 3, 6])
    for smoothing in (0.0, 0.3):
        loss = linear_cross_entropy(
            torch.ones(3, 2), torch.ones(7, 2), labels, label_smoothing=smoothing, backend=backend
        )
        assert loss.item() == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_it_equals_linear_followed_by_cross_entropy(backend, smoothing, reduction):
    hidden, weight, labels, bias = (x.double() if x.is_floating_point() else x for x in example(1))
    loss = linear_cross_entropy(
        hidden,
        weight,
        labels,
        bias,
        label_smoothing=smoothing,
        reduction=reduction,
        backend=backend,
    )
    expected = F.cross_entropy(
        F.linear(hidden, weight, bias), labels, label_smoothing=smoothing, reduction=reduction
    )
    torch.testing.assert_close(loss, expected)


@given(
    seed=st.integers(0, 2**16),
    sizes=st.tuples(*[st.integers(1, 20)] * 3),
    ignored=st.sampled_from([0.0, 0.5, 0.95]),
    smoothing=st.sampled_from([0.0, 0.1]),
    biased=st.booleans(),
    weighted=st.booleans(),
    reduction=st.sampled_from(["mean", "sum"]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_chunked_is_as_exact_as_the_reference(
    seed, sizes, ignored, smoothing, biased, weighted, reduction
):
    hidden, weight, labels, bias = example(seed, *sizes, ignored)
    bias = bias if biased else None
    row_weights = torch.linspace(0.1, 2, len(labels)) if weighted else None
    options = {"label_smoothing": smoothing, "reduction": reduction, "row_weights": row_weights}
    double = (hidden.double(), weight.double(), labels, None if bias is None else bias.double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_TILE", 40)
        exact = loss_and_gradients(*double, **options, backend="reference")
        reference = loss_and_gradients(hidden, weight, labels, bias, **options, backend="reference")
        chunked = loss_and_gradients(hidden, weight, labels, bias, **options, backend="chunked")
    logits = hidden.abs() @ weight.abs().T + (0 if bias is None else bias.abs())
    # What the terms of the loss and of the three gradients are made of.
    sizes = (1 + logits.max(), weight.abs().max(), hidden.abs().max(), 1)
    rows = len(labels) if reduction == "sum" else 1
    for truth, size, earned, value in zip(exact, sizes, reference, chunked, strict=False):
        roundings = 4 * torch.finfo(value.dtype).eps * (size * rows * (1 + logits.max()))
        assert (value - truth).abs().max() <= (earned - truth).abs().max() + roundings


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_pass_gradcheck_in_float64(smoothing):
    hidden, weight, labels, bias = example(2)
    inputs = [x.double().requires_grad_() for x in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda h, w, b: linear_cross_entropy(h, w, labels, b, label_smoothing=smoothing), inputs
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_unlabelled_rows_change_nothing_and_get_no_gradient(backend):
    hidden, weight, labels, bias = example(3)
    before = loss_and_gradients(hidden, weight, labels, bias, backend=backend)
    hidden[labels == -100] = 77.0
    after = loss_and_gradients(hidden, weight, labels, bias, backend=backend)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert not after[1][labels == -100].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_label_can_mean_ignored(backend):
    hidden, weight, labels, bias = example(4)
    other = labels.where(labels != -100, 7)
    other[labels == 7] = 8
    expected = linear_cross_entropy(
        hidden, weight, labels.where(labels != 7, 8), bias, backend=backend
    )
    loss = linear_cross_entropy(hidden, weight, other, bias, ignore_index=7, backend=backend)
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_without_labels_costs_nothing_and_moves_nothing(backend):
    hidden, weight, labels, bias = example(5)
    labels[:] = -100
    loss, *gradients = loss_and_gradients(hidden, weight, labels, bias, backend=backend)
    assert loss.item() == 0.0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_any_weight_cost_nothing(backend):
    row_weights = torch.zeros(13)
    loss, *gradients = loss_and_gradients(*example(6), row_weights=row_weights, backend=backend)
    assert loss.item() == 0.0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_weight_two_counts_as_two_rows(backend):
    hidden, weight, labels, bias = example(6, ignored=0.0)
    row_weights = torch.ones(len(labels))
    row_weights[4] = 2.0
    twice = torch.cat([torch.arange(len(labels)), torch.tensor([4])])
    loss = linear_cross_entropy(
        hidden, weight, labels, bias, row_weights=row_weights, backend=backend
    )
    expected = linear_cross_entropy(hidden[twice], weight, labels[twice], bias, backend=backend)
    torch.testing.assert_close(loss, expected)


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


@pytest.mark.parametrize("backend", BACKENDS)
def test_low_precision_inputs_are_accumulated_in_float32(backend):
    hidden, weight, labels, bias = example(10, dim=64)
    low = (hidden.bfloat16(), weight.bfloat16(), labels, bias.bfloat16())
    loss, *gradients = loss_and_gradients(*low, backend=backend)
    exact = linear_cross_entropy(low[0].double(), low[1].double(), labels, low[3].double())
    assert loss.dtype == torch.float32
    assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_does_not_lower_the_precision(backend):
    arguments = example(11)
    plain = linear_cross_entropy(*arguments, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(linear_cross_entropy(*arguments, backend=backend), plain)


def test_row_weights_get_no_gradient():
    hidden, weight, labels, bias = example(12)
    row_weights = torch.ones(len(labels), requires_grad=True)
    for backend in BACKENDS:
        loss = linear_cross_entropy(
            hidden, weight, labels, bias, row_weights=row_weights, backend=backend
        )
        assert not loss.requires_grad


def test_repeating_gives_the_same_bits():
    first, second = (loss_and_gradients(*example(13)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_fused_is_refused():
    with pytest.raises(UserError, match="does not exist"):
        linear_cross_entropy(*example(14), backend="fused")
