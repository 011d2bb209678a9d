import pytest
import torch
from padded_texts import padded_maxsim, padded_xtr

from embedtrain.ops.maxsim import token_maximum

BACKENDS = ["reference", "chunked"]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(token_maximum, "CPU_TILE", 64)
    monkeypatch.setattr(token_maximum, "ENTRIES", 8)


def ones(*shape):
    return torch.ones(shape, dtype=torch.bool)


def example(seed, queries=3, query_tokens=5, documents=6, document_tokens=7, dim=8):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(queries, query_tokens, dim, generator=generator)
    document = torch.randn(documents, document_tokens, dim, generator=generator)
    query_mask = torch.rand(queries, query_tokens, generator=generator) < 0.7
    document_mask = torch.rand(documents, document_tokens, generator=generator) < 0.7
    query_mask[:, 0] = True
    document_mask[:, 2] = True
    return query, document, query_mask, document_mask


def scores_and_gradients(query, document, *rest, **options):
    query, document = query.clone().requires_grad_(), document.clone().requires_grad_()
    scores = padded_xtr(query, document, *rest, **options)
    upstream = torch.linspace(-1, 1, scores.numel()).view_as(scores).to(scores.dtype)
    return (scores, *torch.autograd.grad(scores, (query, document), upstream))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("top_k", "expected"), [(1, [1.0, 1.0]), (2, [0.9, 1.0]), (4, [0.9, 0.5])])
def test_scores_match_values_worked_by_hand(backend, top_k, expected):
    query = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    document = torch.tensor([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [-1.0, 0.0]]])
    scores = padded_xtr(query, document, ones(1, 2), ones(2, 2), top_k, backend=backend)
    torch.testing.assert_close(scores, torch.tensor([expected]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("extra", [0, 5])
def test_retrieving_every_token_gives_maxsim_per_query_token(backend, extra):
    query, document, query_mask, document_mask = example(1)
    top_k = int(document_mask.sum()) + extra
    scores = padded_xtr(query, document, query_mask, document_mask, top_k, backend=backend)
    mean = padded_maxsim(query, document, query_mask, document_mask) / query_mask.sum(
        1, keepdim=True
    )
    torch.testing.assert_close(scores, mean)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("top_k", [1, 4, 11, 100])
def test_chunked_is_as_exact_as_the_reference(seed, top_k):
    query, document, *masks = example(seed)
    exact = scores_and_gradients(
        query.double(), document.double(), *masks, top_k, backend="reference"
    )
    reference = scores_and_gradients(query, document, *masks, top_k, backend="reference")
    chunked = scores_and_gradients(query, document, *masks, top_k, backend="chunked")
    size = query.abs().max() * document.abs().max()
    for truth, earned, value in zip(exact, reference, chunked, strict=True):
        roundings = 4 * torch.finfo(value.dtype).eps * size
        assert (value - truth).abs().max() <= (earned - truth).abs().max() + roundings


def test_gradients_pass_gradcheck_in_float64():
    query, document, *masks = example(2, 2, 3, 3, 4, 3)
    arguments = (query.double().requires_grad_(), document.double().requires_grad_())
    assert torch.autograd.gradcheck(lambda q, d: padded_xtr(q, d, *masks, 3), arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_documents_score_the_same_even_where_only_one_fits_into_the_top(backend):
    query = torch.ones(1, 1, 1)
    document = torch.tensor([0.5, 1.0, 1.0]).view(3, 1, 1)
    scores = padded_xtr(query, document, ones(1, 1), ones(3, 1), 1, backend=backend)
    assert scores.tolist() == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_tokens_and_empty_texts_take_no_place_in_the_top(backend):
    query, document, query_mask, document_mask = example(3)
    document_mask[1] = False
    query_mask[2] = False
    before = scores_and_gradients(query, document, query_mask, document_mask, 5, backend=backend)
    query[~query_mask] = 50.0
    document[~document_mask] = 50.0
    after = scores_and_gradients(query, document, query_mask, document_mask, 5, backend=backend)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert (after[0][:, 1] == 0).all()
    assert (after[0][2] == 0).all()
    assert not after[2][~document_mask].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_empty_documents_scores_zero(backend):
    query, document, query_mask, document_mask = example(3)
    scores = padded_xtr(query, document, query_mask, document_mask & False, 5, backend=backend)
    assert not scores.any()


def test_autocast_does_not_lower_the_precision():
    arguments = (*example(5), 6)
    plain = padded_xtr(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(padded_xtr(*arguments), plain)


def test_repeating_gives_the_same_bits():
    first, second = (scores_and_gradients(*example(6), 6) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
