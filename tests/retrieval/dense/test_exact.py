"""Exact search against a plain sort of all scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.errors import UserError
from embedtrain.precision import float32_products
from embedtrain.retrieval.dense import exact
from embedtrain.retrieval.dense.exact import (
    SearchResult,
    best_by_key,
    best_columns,
    resident,
    search_exact,
)


def whole_numbers(num_rows, dim, seed, largest=2):
    """Embeddings whose inner products are exact in float32, so that rounding cannot differ."""
    rng = np.random.default_rng(seed)
    return rng.integers(-largest, largest + 1, size=(num_rows, dim)).astype(np.float32)


def search_by_sorting(queries, documents, num_results):
    scores = queries @ documents.T
    indices = np.argsort(-scores, axis=1, kind="stable")[:, :num_results]
    return indices, np.take_along_axis(scores, indices, axis=1)


@settings(max_examples=150, deadline=None)
@given(
    num_documents=st.integers(1, 60),
    num_results=st.integers(1, 70),
    block_size=st.integers(1, 70),
    scores_per_block=st.sampled_from([1, 50, 2**22]),
    seed=st.integers(0, 1000),
)
def test_every_block_size_gives_the_same_results_with_ties_by_lower_index(
    num_documents, num_results, block_size, scores_per_block, seed
):
    queries, documents = whole_numbers(7, 3, seed), whole_numbers(num_documents, 3, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "SCORES_PER_BLOCK", {"cpu": scores_per_block})
        result = search_exact(queries, documents, num_results, block_size=block_size)
    indices, scores = search_by_sorting(queries, documents, num_results)
    np.testing.assert_array_equal(result.indices, indices)
    np.testing.assert_array_equal(result.scores, scores)


SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 3.4e38]


@settings(max_examples=150, deadline=None)
@given(
    scores=st.lists(
        st.lists(st.one_of(st.sampled_from(SPECIAL), st.floats(width=32, allow_nan=False)),
                 min_size=17, max_size=17), min_size=1, max_size=3),
    num_results=st.integers(1, 20),
)  # fmt: skip
def test_keys_choose_and_order_as_the_sort_on_a_cpu_does(scores, num_results):
    given = torch.tensor(scores, dtype=torch.float32)
    one, other = best_columns(given, num_results), best_by_key(given, num_results)
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_keys_put_nan_of_either_sign_first(sign):
    scores = torch.tensor([[1.0, np.copysign(np.nan, sign), np.inf]], dtype=torch.float32)
    assert best_by_key(scores, 2).indices.tolist() == [[1, 2]]
    with pytest.raises(UserError, match="a score that is NaN"):
        SearchResult.of_blocks([best_by_key(scores, 2)])


def test_on_a_gpu_products_are_neither_rounded_to_tf32_nor_autocast(monkeypatch):
    settings, seen = torch.backends.cuda.matmul, []

    def note(scores, num_results):
        seen.append((settings.fp32_precision, torch.is_autocast_enabled("cuda"), scores.dtype))
        return best_by_key(scores, num_results)

    monkeypatch.setattr(exact, "best_columns", note)
    shadow_cuda = pytest.importorskip("shadow")
    queries, documents = whole_numbers(3, 4, seed=0), whole_numbers(40, 4, seed=1)
    with (
        shadow_cuda.ShadowCuda(),
        float32_products("tf32", "cuda"),
        torch.autocast("cuda", torch.bfloat16),
    ):
        found = search_exact(queries, documents, 7, block_size=16, device="cuda")
    assert seen == [("ieee", False, torch.float32)] * 3
    expected = search_exact(queries, documents, 7)
    np.testing.assert_array_equal(found.indices, expected.indices)


def test_real_numbers_agree_for_every_block_size_up_to_rounding():
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(50, 64, generator=generator), dim=1)
    documents = torch.nn.functional.normalize(torch.randn(1000, 64, generator=generator), dim=1)
    truth = (queries.double() @ documents.double().T).numpy()
    for block_size in (1, 97, 256, 5000):
        result = search_exact(queries, documents, 20, block_size=block_size)
        np.testing.assert_allclose(
            result.scores, np.take_along_axis(truth, result.indices, axis=1), atol=1e-6
        )
        np.testing.assert_allclose(result.scores, -np.sort(-truth, axis=1)[:, :20], atol=1e-6)


def test_a_file_mapped_read_only_gives_what_memory_gives(tmp_path):
    documents = whole_numbers(300, 8, seed=0)
    np.save(tmp_path / "documents.npy", documents)
    mapped = np.load(tmp_path / "documents.npy", mmap_mode="r")
    queries = whole_numbers(5, 8, seed=1)
    from_file = search_exact(queries, mapped, 10, block_size=64)
    from_memory = search_exact(torch.from_numpy(queries), torch.from_numpy(documents), 10)
    np.testing.assert_array_equal(from_file.indices, from_memory.indices)
    np.testing.assert_array_equal(from_file.scores, from_memory.scores)


def test_a_negative_zero_ties_with_zero():
    documents = np.array([[-0.0], [0.0], [-0.0], [0.0]], dtype=np.float32)
    result = search_exact(np.ones((1, 1), np.float32), documents, 3)
    assert result.indices.tolist() == [[0, 1, 2]]


def test_half_precision_is_scored_in_float32():
    documents = whole_numbers(50, 8, seed=0)
    queries = whole_numbers(3, 8, seed=1)
    half = search_exact(torch.from_numpy(queries).bfloat16(), documents.astype(np.float16), 5)
    np.testing.assert_array_equal(half.scores, search_exact(queries, documents, 5).scores)


@pytest.mark.parametrize("num_documents", [3, 30])
def test_a_nan_anywhere_is_the_users_mistake(num_documents):
    documents = whole_numbers(num_documents, 4, seed=0)
    documents[2, 1] = np.nan
    with pytest.raises(UserError, match="a score that is NaN"):
        search_exact(whole_numbers(2, 4, seed=1), documents, 5, block_size=10)


@pytest.mark.parametrize(
    ("num_queries", "num_documents", "dim", "num_results", "message"),
    [
        (1, 0, 4, 5, "search has no documents"),
        (0, 1, 4, 5, "search has no queries"),
        (1, 1, 5, 5, "documents have 5, queries; got 4. Encode both with the same model"),
        (1, 1, 4, 0, "num_results must be at least 1; got 0"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused(
    num_queries, num_documents, dim, num_results, message
):
    with pytest.raises(UserError, match=message):
        search_exact(
            whole_numbers(num_queries, 4, seed=0),
            whole_numbers(num_documents, dim, seed=1),
            num_results,
        )


def test_documents_travel_to_a_gpu_with_no_more_than_a_block_of_pinned_memory(monkeypatch):
    shadow_cuda = pytest.importorskip("shadow")
    documents, pinned = whole_numbers(20, 4, seed=0).astype(np.float16), [0]
    monkeypatch.setitem(exact.DOCUMENTS_PER_BLOCK, "cuda", 7)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (2 * documents.size * 4, 0))
    with shadow_cuda.ShadowCuda():
        pin = torch.Tensor.pin_memory
        monkeypatch.setattr(
            torch.Tensor, "pin_memory", lambda values: pinned.append(len(values)) or pin(values)
        )
        there = resident(documents, "cuda")
        assert there.is_cuda
        assert there.dtype == torch.float32
        assert max(pinned) <= 7
        np.testing.assert_array_equal(there.cpu().numpy(), documents)
        monkeypatch.undo()
