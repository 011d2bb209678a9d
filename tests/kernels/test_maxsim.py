"""The MaxSim kernels through ``maxsim(backend="fused")``; the float32 reference earns the tolerance."""

import pytest
import torch

pytest.importorskip("triton")
from embedtrain_kernels.configurations import Tile
from padded_texts import padded_maxsim

from embedtrain.errors import UserError
from embedtrain.ops.maxsim import fused as maxsim_fused
from embedtrain.ops.maxsim.scores import maxsim
from embedtrain.types import TokenEmbeddings


@pytest.fixture
def small_tile(monkeypatch):
    """Tiles smaller than the texts, so that winners are merged from several of them."""
    monkeypatch.setattr(maxsim_fused, "_tile", lambda query: Tile(16, 16, 0, 4, 1))


def example(device, dim=48, queries=3, documents=4, dtype=torch.float32):
    """Embeddings with holes in their masks, an empty document and an empty query."""
    generator = torch.Generator().manual_seed(dim)
    query = torch.randn(queries, 19, dim, generator=generator)
    document = torch.randn(documents, 37, dim, generator=generator)
    query_mask = torch.rand(queries, 19, generator=generator) < 0.7
    document_mask = torch.rand(documents, 37, generator=generator) < 0.7
    query_mask[0] = False
    document_mask[1] = False
    masks = query_mask.to(device), document_mask.to(device)
    return query.to(device, dtype), document.to(device, dtype), *masks


def run(function, inputs, backend, dtype=None):
    query, document, *masks = inputs
    leaves = [
        tensor.to(dtype or tensor.dtype).clone().requires_grad_() for tensor in (query, document)
    ]
    scores = function(*leaves, *masks, backend=backend)
    upstream = torch.linspace(-1, 1, scores.numel()).view_as(scores).to(scores)
    return scores, *torch.autograd.grad(scores, leaves, upstream)


def assert_as_good_as_reference(function, inputs, eps=1e-6):
    truth = run(function, inputs, "reference", torch.float64)
    earned = run(function, inputs, "reference")
    found = run(function, inputs, "fused")
    empty = truth[0] < -1e30
    assert torch.equal(found[0] < -1e30, empty)
    for place, (exact, reference, value) in enumerate(zip(truth, earned, found, strict=True)):
        kept = ~empty if place == 0 else torch.ones_like(exact, dtype=torch.bool)
        allowed = (reference - exact)[kept].abs().max() + eps * exact[kept].abs().max()
        assert (value - exact)[kept].abs().max() <= allowed


@pytest.mark.parametrize("dim", [16, 48, 128])
def test_scores_and_gradients_equal_the_reference(device, guard, small_tile, dim):
    assert_as_good_as_reference(padded_maxsim, example(device, dim))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_tokens_lose_only_the_rounding_of_gradients(device, guard, dtype):
    eps = 8e-3 if dtype == torch.bfloat16 else 1e-3
    assert_as_good_as_reference(padded_maxsim, example(device, 32, dtype=dtype), eps)


def test_ties_go_to_the_first_token(device, guard, small_tile):
    query = torch.ones(1, 16, device=device)
    document = torch.ones(40, 16, device=device, requires_grad=True)
    lengths = torch.tensor([1], device=device), torch.tensor([40], device=device)
    packed = TokenEmbeddings(query, lengths[0]), TokenEmbeddings(document, lengths[1])
    score = maxsim(*packed, backend="fused")
    score.sum().backward()
    assert document.grad[0].eq(1).all()
    assert not document.grad[1:].any()


def test_the_empty_places_of_a_tile_do_not_beat_a_negative_similarity(device, guard, small_tile):
    query, length = torch.ones(1, 16, device=device), torch.tensor([1], device=device)
    document, tokens = -torch.ones(3, 16, device=device), torch.tensor([3], device=device)
    packed = TokenEmbeddings(query, length), TokenEmbeddings(document, tokens)
    assert maxsim(*packed, backend="fused").item() == -16.0


def test_without_a_wanted_gradient_no_winner_is_stored(device, guard, monkeypatch):
    saved = []
    plain = maxsim_fused.maxsim_scores
    monkeypatch.setattr(
        maxsim_fused,
        "maxsim_scores",
        lambda *inputs, save_winners: (
            saved.append(save_winners) or plain(*inputs, save_winners=save_winners)
        ),
    )
    inputs = example(device, 16)
    scores = padded_maxsim(*inputs, backend="fused")
    assert saved == [False]
    assert torch.equal(scores, run(padded_maxsim, inputs, "fused")[0])


def test_gradients_are_the_same_bits_on_every_run(device, guard, small_tile):
    inputs = example(device)
    for first, second in zip(*(run(padded_maxsim, inputs, "fused") for _ in range(2)), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("dim", "dtype", "reason"),
    [
        (512, torch.float32, "dim 512"),
        (24, torch.float32, "dim 24"),
        (32, torch.float64, "float64"),
    ],
)
def test_what_the_kernels_lack_is_an_error_that_names_it(device, dim, dtype, reason):
    with pytest.raises(UserError, match=reason):
        padded_maxsim(*example(device, dim, dtype=dtype), backend="fused")


def test_without_a_gpu_or_the_interpreter_fused_is_an_error(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="device cpu"):
        padded_maxsim(*example("cpu"), backend="fused")
