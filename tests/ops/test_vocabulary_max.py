import pytest
import torch

from embedtrain.ops.maxsim import token_maximum
from embedtrain.ops.vocabulary_max import vocabulary_max, vocabulary_max_reference

FORMS = [vocabulary_max_reference, vocabulary_max]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(token_maximum, "CPU_TILE", 64)
    monkeypatch.setattr(token_maximum, "ENTRIES", 32)


def example(seed, lengths=(3, 5, 1, 4), vocabulary=11, dim=6):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(sum(lengths), dim, generator=generator)
    weight = torch.randn(vocabulary, dim, generator=generator)
    return hidden, torch.tensor(lengths), weight, torch.randn(vocabulary, generator=generator)


def logits_and_gradients(hidden, lengths, weight, bias, form=vocabulary_max):
    inputs = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
    logits = form(inputs[0], lengths, inputs[1], inputs[2])
    upstream = torch.linspace(-1, 1, logits.numel()).view_as(logits).to(logits.dtype)
    return (logits, *torch.autograd.grad(logits, inputs, upstream))


@pytest.mark.parametrize("form", FORMS)
def test_each_entry_is_the_largest_logit_over_the_tokens_of_the_text(form):
    hidden = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, -1.0]])
    weight = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    lengths = torch.tensor([2, 1])
    plain = form(hidden, lengths, weight)
    assert plain.tolist() == [[2.0, 1.0], [-2.0, 0.0]]
    biased = form(hidden, lengths, weight, torch.tensor([0.5, -1.0]))
    assert biased.tolist() == [[2.5, 0.0], [-1.5, -1.0]]


@pytest.mark.parametrize("seed", range(5))
def test_chunked_is_as_exact_as_the_reference(seed):
    hidden, lengths, weight, bias = example(seed)
    exact = logits_and_gradients(
        hidden.double(), lengths, weight.double(), bias.double(), vocabulary_max_reference
    )
    reference = logits_and_gradients(hidden, lengths, weight, bias, vocabulary_max_reference)
    chunked = logits_and_gradients(hidden, lengths, weight, bias)
    size = hidden.abs().max() * weight.abs().max()
    for truth, earned, value in zip(exact, reference, chunked, strict=True):
        roundings = 4 * torch.finfo(value.dtype).eps * size
        assert (value - truth).abs().max() <= (earned - truth).abs().max() + roundings


def test_gradients_pass_gradcheck_in_float64():
    hidden, lengths, weight, bias = example(1)
    inputs = [x.double().requires_grad_() for x in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(lambda h, w, b: vocabulary_max(h, lengths, w, b), inputs)


@pytest.mark.parametrize("form", FORMS)
def test_a_text_without_tokens_gives_zeros(form):
    hidden, lengths, weight, bias = example(2, lengths=(0, 4, 0, 2))
    logits, *gradients = logits_and_gradients(hidden, lengths, weight, bias, form)
    assert not logits[[0, 2]].any()
    assert logits[[1, 3]].all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_permuting_the_tokens_of_a_text_changes_nothing():
    hidden, lengths, weight, bias = example(3)
    permuted = hidden.clone()
    permuted[3:8] = hidden[[6, 3, 7, 5, 4]]
    torch.testing.assert_close(
        vocabulary_max(permuted, lengths, weight, bias),
        vocabulary_max(hidden, lengths, weight, bias),
    )


@pytest.mark.parametrize("form", FORMS)
def test_ties_go_to_the_first_token(form):
    hidden = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    weight, bias = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.zeros(2)
    gradient = logits_and_gradients(hidden[:2], torch.tensor([2]), weight, bias, form)[1]
    assert gradient[0].any()
    assert not gradient[1].any()


def test_low_precision_and_autocast_give_float32_logits():
    hidden, lengths, weight, bias = example(4)
    hidden = hidden.bfloat16()
    plain = vocabulary_max(hidden, lengths, weight, bias)
    assert plain.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vocabulary_max(hidden, lengths, weight, bias), plain)


def test_repeating_gives_the_same_bits():
    first, second = (logits_and_gradients(*example(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kept", [0.0, 0.1, 1.0])
def test_following_the_gradients_that_are_not_zero_gives_the_same(kept, monkeypatch):
    hidden, lengths, weight, bias = (
        x.double() if x.is_floating_point() else x for x in example(2, lengths=(3, 0, 5, 4))
    )
    found = []
    for few in (False, True):
        inputs = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
        logits = vocabulary_max(inputs[0], lengths, inputs[1], inputs[2], few_gradients=few)
        generator = torch.Generator().manual_seed(3)
        upstream = torch.rand(logits.shape, generator=generator, dtype=logits.dtype)
        upstream = upstream * (upstream < kept)
        monkeypatch.setattr(token_maximum, "FEW", 1 / 4)
        monkeypatch.setattr(token_maximum, "ENTRIES", 3)
        found.append(torch.autograd.grad(logits, inputs, upstream))
    for every, few in zip(*found, strict=True):
        torch.testing.assert_close(few, every, rtol=1e-12, atol=1e-14)
