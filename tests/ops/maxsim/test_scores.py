import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from padded_texts import pack, padded_grouped, padded_maxsim

from embedtrain.ops.maxsim import token_maximum
from embedtrain.ops.maxsim.reference import maxsim_reference
from embedtrain.ops.maxsim.scores import maxsim, maxsim_grouped
from embedtrain.types import TokenEmbeddings

BACKENDS = ["reference", "chunked"]
MINIMUM = torch.finfo(torch.float32).min


def ones(*shape):
    return torch.ones(shape, dtype=torch.bool)


def example(seed, queries=3, query_tokens=5, documents=4, document_tokens=7, dim=6, group=None):
    """Random embeddings and masks with holes; every text keeps at least one token."""
    generator = torch.Generator().manual_seed(seed)
    document_shape = (documents,) if group is None else (queries, group)
    query = torch.randn(queries, query_tokens, dim, generator=generator)
    document = torch.randn(*document_shape, document_tokens, dim, generator=generator)
    query_mask = torch.rand(queries, query_tokens, generator=generator) < 0.7
    document_mask = torch.rand(*document_shape, document_tokens, generator=generator) < 0.7
    query_mask[..., -1] = True
    document_mask[..., 0] = True
    return query, document, query_mask, document_mask


def scores_and_gradients(function, query, document, *rest, **options):
    query, document = query.clone().requires_grad_(), document.clone().requires_grad_()
    scores = function(query, document, *rest, **options)
    upstream = torch.linspace(0.5, 1.5, scores.numel()).view_as(scores).to(scores.dtype)
    return (scores, *torch.autograd.grad(scores, (query, document), upstream))


def assert_as_good_as_reference(function, query, document, *rest):
    """Be no farther from float64 than the reference in the same dtype is, but for a few roundings.

    A rounding is relative to the terms of a sum, not to what is left after they cancel: hence the sizes.
    """
    double = (query.double(), document.double())
    truth = scores_and_gradients(function, *double, *rest, backend="reference")
    absolute = (tokens.abs() for tokens in double)
    sizes = scores_and_gradients(function, *absolute, *rest, backend="reference")
    reference = scores_and_gradients(function, query, document, *rest, backend="reference")
    chunked = scores_and_gradients(function, query, document, *rest, backend="chunked")
    for exact, size, earned, value in zip(truth, sizes, reference, chunked, strict=True):
        roundings = 4 * torch.finfo(value.dtype).eps * size.abs().max()
        assert (value - exact).abs().max() <= (earned - exact).abs().max() + roundings


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(token_maximum, "CPU_TILE", 64)
    monkeypatch.setattr(token_maximum, "ENTRIES", 8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_score_is_the_sum_of_the_best_token_of_each_query_token(backend):
    query = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    document = torch.tensor([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [-1.0, 0.0]]])
    scores = padded_maxsim(query, document, ones(1, 2), ones(2, 2), backend=backend)
    torch.testing.assert_close(scores, torch.tensor([[1.8, 1.0]]))
    grouped = padded_grouped(query, document[None], ones(1, 2), ones(1, 2, 2), backend=backend)
    torch.testing.assert_close(grouped, torch.tensor([[1.8, 1.0]]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_does_not_beat_a_negative_similarity(backend):
    query = torch.tensor([[[1.0, 0.0]]])
    document = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, False]])
    assert padded_maxsim(query, document, ones(1, 1), mask, backend=backend).item() == -1.0


@given(
    seed=st.integers(0, 2**16),
    sizes=st.tuples(*[st.integers(1, 6)] * 4),
    dim=st.sampled_from([1, 3, 8]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_chunked_scores_and_gradients_are_as_exact_as_the_reference(seed, sizes, dim):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_maximum, "CPU_TILE", 16)
        patch.setattr(token_maximum, "ENTRIES", 8)
        assert_as_good_as_reference(padded_maxsim, *example(seed, *sizes, dim))


@given(
    seed=st.integers(0, 2**16), sizes=st.tuples(*[st.integers(1, 5)] * 4), group=st.integers(1, 4)
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_grouped_chunked_is_as_exact_as_the_reference(seed, sizes, group):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_maximum, "CPU_TILE", 16)
        assert_as_good_as_reference(padded_grouped, *example(seed, *sizes, group=group))


def test_realistic_sizes_in_one_tile_are_as_exact_as_the_reference():
    assert_as_good_as_reference(padded_maxsim, *example(0, 9, 32, 11, 180, 128))


@pytest.mark.parametrize("length", [200, 300, 40_000])
def test_winners_fit_the_integer_that_stores_them(length):
    document = torch.zeros(1, length, 1)
    document[0, -1] = 1.0
    query = torch.ones(1, 1, 1)
    gradient = scores_and_gradients(
        lambda q, d: padded_maxsim(q, d, ones(1, 1), ones(1, length), backend="chunked"),
        query,
        document,
    )[2]
    assert gradient.abs().argmax() == length - 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_tokens_change_nothing_and_get_no_gradient(backend, small_tiles):
    query, document, query_mask, document_mask = example(3)
    before = scores_and_gradients(
        padded_maxsim, query, document, query_mask, document_mask, backend=backend
    )
    query[~query_mask] = 100.0
    document[~document_mask] = 100.0
    after = scores_and_gradients(
        padded_maxsim, query, document, query_mask, document_mask, backend=backend
    )
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old, new)
    assert not after[1][~query_mask].any()
    assert not after[2][~document_mask].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_documents_rank_last_and_empty_queries_score_zero(backend):
    query, document, query_mask, document_mask = example(4)
    query_mask[2] = False
    document_mask[1] = False
    scores, query_gradient, document_gradient = scores_and_gradients(
        padded_maxsim, query, document, query_mask, document_mask, backend=backend
    )
    assert (scores[:, 1] == MINIMUM).all()
    assert (scores[2, [0, 2, 3]] == 0).all()
    assert not document_gradient[1].any()
    assert not query_gradient[2].any()
    assert query_gradient[0].any()
    assert document_gradient[3].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_empty_documents_only_scores_the_minimum(backend):
    query, document, query_mask, document_mask = example(4)
    document_mask[:] = False
    scores, *gradients = scores_and_gradients(
        padded_maxsim, query, document, query_mask, document_mask, backend=backend
    )
    assert (scores == MINIMUM).all()
    assert not any(gradient.any() for gradient in gradients)
    grouped = padded_grouped(
        query, document[:3, None], query_mask, document_mask[:3, None], backend=backend
    )
    assert (grouped == MINIMUM).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_queries_in_groups_score_zero(backend):
    query, document, query_mask, document_mask = example(5, group=2)
    query_mask[-1] = False
    scores = padded_grouped(query, document, query_mask, document_mask, backend=backend)
    assert (scores[-1] == 0).all()
    assert (scores[:-1] != 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grouped", [False, True])
def test_ties_go_to_the_first_real_token(backend, grouped):
    query = torch.ones(1, 1, 2)
    document = torch.tensor([[[5.0, 5.0], [1.0, 0.0], [0.0, 1.0]], [[0.5, 0.0]] * 3])
    mask = torch.tensor([[False, True, True], [True, True, True]])
    function = padded_grouped if grouped else padded_maxsim
    arguments = (
        (document[None], ones(1, 1), mask[None]) if grouped else (document, ones(1, 1), mask)
    )
    gradient = scores_and_gradients(function, query, *arguments, backend=backend)[2]
    won = gradient.view(2, 3, 2).abs().sum(-1) > 0
    assert won.tolist() == [[False, True, False], [True, False, False]]


def test_gradients_pass_gradcheck_in_float64(small_tiles):
    query, document, query_mask, document_mask = example(6, 2, 3, 3, 4, 3)
    arguments = (query.double().requires_grad_(), document.double().requires_grad_())
    assert torch.autograd.gradcheck(
        lambda q, d: padded_maxsim(q, d, query_mask, document_mask), arguments
    )


def test_grouped_gradients_pass_gradcheck_in_float64(small_tiles):
    query, document, query_mask, document_mask = example(6, 2, 3, 3, 4, 3, group=2)
    arguments = (query.double().requires_grad_(), document.double().requires_grad_())
    assert torch.autograd.gradcheck(
        lambda q, d: padded_grouped(q, d, query_mask, document_mask), arguments
    )


def test_only_the_wanted_gradients_are_computed():
    query, document, *masks = example(7)
    document.requires_grad_()
    padded_maxsim(query, document, *masks).sum().backward()
    assert query.grad is None
    assert document.grad is not None
    with torch.no_grad():
        assert not padded_maxsim(query, document, *masks).requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_texts_score_as_padded_ones(backend):
    query, document, query_mask, document_mask = example(8, queries=4)
    padded = maxsim_reference(query, document, query_mask, document_mask)
    packed = (pack(query, query_mask), pack(document, document_mask))
    torch.testing.assert_close(maxsim(*packed, backend=backend), padded)
    owners = torch.tensor([2, 0, 0, 3])
    grouped = maxsim_grouped(*packed, owners)
    torch.testing.assert_close(grouped, padded[owners, torch.arange(4)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_texts_may_be_empty(backend):
    query = TokenEmbeddings(torch.randn(3, 2), torch.tensor([3, 0]))
    document = TokenEmbeddings(torch.randn(4, 2), torch.tensor([0, 4, 0]))
    scores = maxsim(query, document, backend=backend)
    assert (scores[:, [0, 2]] == MINIMUM).all()
    assert scores[1, 1] == 0
    owners = torch.tensor([0, 1, 1])
    grouped = maxsim_grouped(query, document, owners)
    assert grouped.tolist() == [MINIMUM, 0.0, MINIMUM]


def test_permuting_documents_permutes_the_scores(small_tiles):
    query, document, query_mask, document_mask = example(9)
    order = torch.tensor([2, 0, 3, 1])
    scores = padded_maxsim(query, document, query_mask, document_mask)
    permuted = padded_maxsim(query, document[order], query_mask, document_mask[order])
    torch.testing.assert_close(permuted, scores[:, order])


def test_low_precision_inputs_are_accumulated_in_float32():
    query, document, query_mask, document_mask = example(10, dim=64)
    query, document = query.bfloat16(), document.bfloat16()
    scores, *gradients = scores_and_gradients(
        padded_maxsim, query, document, query_mask, document_mask
    )
    exact = padded_maxsim(query.double(), document.double(), query_mask, document_mask)
    assert scores.dtype == torch.float32
    assert [gradient.dtype for gradient in gradients] == [torch.bfloat16, torch.bfloat16]
    torch.testing.assert_close(scores.double(), exact, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grouped", [False, True])
def test_autocast_does_not_lower_the_precision(backend, grouped):
    function = padded_grouped if grouped else padded_maxsim
    arguments = example(11, group=2 if grouped else None)
    plain = function(*arguments, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(function(*arguments, backend=backend), plain)


@pytest.mark.parametrize("function", [padded_maxsim, padded_grouped])
def test_repeating_gives_the_same_bits(function, small_tiles):
    arguments = example(12, 4, 8, 6, 20, 16, group=3 if function is padded_grouped else None)
    runs = [scores_and_gradients(function, *arguments) for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))
