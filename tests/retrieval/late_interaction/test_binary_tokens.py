"""Signs of tokens against the definition in loops."""

from dataclasses import replace

import numpy as np
import pytest
from token_toys import (
    best_by_sorting,
    maxsim_in_loops,
    noisy_queries,
    topical_tokens,
    unit_tokens,
    whole_tokens,
)

from embedtrain.errors import UserError
from embedtrain.retrieval.late_interaction import binary_tokens
from embedtrain.retrieval.late_interaction.binary_tokens import (
    BinaryIndex,
    BinarySearch,
    pack_signs,
    unpack_signs,
)
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.retrieval.late_interaction.rerank import recall_against_exact
from embedtrain.types import TokenVectors


def test_a_token_takes_one_bit_for_each_number():
    documents = unit_tokens(30, 128, 0)
    packed = pack_signs(documents)
    assert packed.packed.values.shape == (30 * 8, 16)
    assert packed.nbytes * 32 == documents.nbytes


@pytest.mark.parametrize("dim", [5, 8, 16, 33])
@pytest.mark.parametrize("block_tokens", [1, 10, 2**16])
def test_scores_are_those_of_the_signs_over_the_root_of_the_dimension(dim, block_tokens):
    queries, documents = whole_tokens(4, dim, 0), whole_tokens(30, dim, 1, shortest=0)
    signs = np.where(documents.values >= 0, 1.0, -1.0).astype(np.float32)
    truth = maxsim_in_loops(queries, replace(documents, values=signs))
    truth[:, documents.lengths > 0] /= np.sqrt(dim)
    result = BinarySearch(block_tokens=block_tokens).build(documents).search(queries, 30)
    np.testing.assert_allclose(
        result.scores, np.take_along_axis(truth, result.indices, axis=1), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(result.scores, best_by_sorting(truth, 30)[1], rtol=1e-5, atol=1e-5)


def test_by_hand():
    assert unpack_signs(np.array([[0b10100000]], np.uint8), 4).tolist() == [[0.5, -0.5, 0.5, -0.5]]
    packed = pack_signs(TokenVectors(np.array([[3.0, -0.1, 0.0, -2.0]]), np.array([1])))
    assert packed.packed.values.tolist() == [[0b10100000]]


def test_vectors_that_are_signs_already_keep_their_scores():
    documents = unit_tokens(20, 16, 0)
    signs = np.where(documents.values >= 0, 0.25, -0.25).astype(np.float32)
    exact = ExactIndex(replace(documents, values=signs)).search(unit_tokens(3, 16, 1), 5)
    found = BinarySearch().build(documents).search(unit_tokens(3, 16, 1), 5)
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_array_equal(found.scores, exact.scores)


def test_signs_find_most_of_what_floats_find():
    documents = topical_tokens(300, 64, 0, length=20)
    queries, answers = noisy_queries(documents, 40, 8, noise=0.1, seed=1)
    index = BinarySearch().build(documents)
    assert (index.search(queries, 1).indices[:, 0] == answers).mean() > 0.9
    assert 0.5 < recall_against_exact(index, ExactIndex(documents), queries, 10) < 1.0


def test_the_corpus_is_never_unpacked_at_once(monkeypatch):
    unpacked = []

    def watched(signs, dim):
        unpacked.append(len(signs))
        return unpack_signs(signs, dim)

    monkeypatch.setattr(binary_tokens, "unpack_signs", watched)
    documents = whole_tokens(200, 8, 0)
    BinarySearch(block_tokens=32).build(documents).search(whole_tokens(2, 8, 1), 5)
    assert max(unpacked) <= 32


@pytest.mark.parametrize("exact_match", [False, True])
def test_a_saved_index_is_mapped_from_its_files_and_finds_the_same(tmp_path, exact_match):
    random = np.random.default_rng(0)
    queries, documents = (
        replace(
            unit_tokens(size, 24, size, length=5),
            ids=np.tile(np.arange(5), size),
            cls=random.normal(size=(size, 3)),
            exact_match=exact_match,
        )
        for size in (4, 30)
    )
    index = BinarySearch().build(documents)
    index.save(tmp_path / "index")
    loaded = BinaryIndex.load(tmp_path / "index")
    assert isinstance(loaded.documents.packed.values, np.memmap)
    assert loaded.num_bytes == index.num_bytes
    expected, found = index.search(queries, 5), loaded.search(queries, 5)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_nan_is_not_taken_for_a_sign():
    documents = whole_tokens(3, 8, 0)
    documents.values[2, 5] = np.nan
    with pytest.raises(UserError, match="documents hold NaN"):
        BinarySearch().build(documents)


def test_queries_of_another_dimension_are_refused():
    with pytest.raises(UserError, match="documents have 8, queries; got 7"):
        BinarySearch().build(whole_tokens(3, 8, 0)).search(whole_tokens(3, 7, 0), 1)
