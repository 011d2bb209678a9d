"""Exact late-interaction search against loops over all pairs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import best_by_sorting, maxsim_in_loops, whole_tokens

from embedtrain.errors import UserError
from embedtrain.retrieval.late_interaction import exact as late_interaction
from embedtrain.retrieval.late_interaction.exact import (
    ExactIndex,
    ExactSearch,
    LateInteractionIndex,
    cut_blocks,
)
from embedtrain.types import TokenVectors


@settings(max_examples=40, deadline=None)
@given(
    num_documents=st.integers(1, 40),
    num_results=st.integers(1, 50),
    block_tokens=st.integers(1, 90),
    query_tokens=st.sampled_from([1, 10, 2**13]),
    seed=st.integers(0, 1000),
)
def test_every_block_size_gives_the_same_results_with_ties_by_lower_index(
    num_documents, num_results, block_tokens, query_tokens, seed
):
    queries = whole_tokens(5, 3, seed)
    documents = whole_tokens(num_documents, 3, seed + 1, shortest=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late_interaction, "BLOCK_QUERY_TOKENS", query_tokens)
        result = ExactIndex(documents, block_tokens).search(queries, num_results)
    indices, scores = best_by_sorting(maxsim_in_loops(queries, documents), num_results)
    np.testing.assert_array_equal(result.indices, indices)
    np.testing.assert_array_equal(result.scores, scores)


def test_the_toy_of_the_method_notes_is_scored_by_hand():
    queries = TokenVectors(np.eye(2, dtype=np.float32), np.array([2]))
    documents = TokenVectors(
        np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32), np.array([2, 2])
    )
    result = ExactSearch().build(documents).search(queries, 2)
    assert result.indices.tolist() == [[0, 1]]
    np.testing.assert_allclose(result.scores, [[1.8, 1.0]], atol=1e-6)


def test_a_negative_similarity_is_not_beaten_by_padding():
    queries = TokenVectors(np.array([[1, 0]], np.float32), np.array([1]))
    documents = TokenVectors(
        np.array([[-1, 0], [-0.5, 0], [-0.5, 0]], np.float32), np.array([1, 2])
    )
    result = ExactIndex(documents).search(queries, 2)
    assert result.indices.tolist() == [[1, 0]]
    np.testing.assert_allclose(result.scores, [[-0.5, -1.0]])


def test_cls_vectors_add_their_inner_product():
    random = np.random.default_rng(0)
    queries, documents = (
        replace(whole_tokens(size, 4, size), cls=random.integers(-2, 3, (size, 3)).astype(float))
        for size in (5, 30)
    )
    truth = maxsim_in_loops(queries, documents) + queries.cls @ documents.cls.T
    indices, scores = best_by_sorting(truth, 7)
    result = ExactIndex(documents, block_tokens=20).search(queries, 7)
    np.testing.assert_array_equal(result.indices, indices)
    np.testing.assert_array_equal(result.scores, scores)


def test_exact_match_compares_equal_words_only(tmp_path):
    queries = TokenVectors(
        np.array([[1], [2], [4]], np.float32), np.array([3]), np.array([7, 8, 9]), exact_match=True
    )
    documents = TokenVectors(
        np.array([[5], [-3], [10], [1], [1]], np.float32),
        np.array([2, 1, 2]),
        np.array([7, 8, 5, 9, 8]),
        exact_match=True,
    )
    ExactIndex(documents).save(tmp_path / "index")
    for index in (ExactIndex(documents), ExactIndex.load(tmp_path / "index")):
        result = index.search(queries, 3)
        # 2 * 1 + 4 * 1; 1 * 5, where -3 loses to another word's 0; nothing in common.
        assert result.indices.tolist() == [[2, 0, 1]]
        assert result.scores.tolist() == [[6.0, 5.0, 0.0]]


def test_a_saved_index_is_mapped_from_its_files_and_finds_the_same(tmp_path):
    queries, documents = whole_tokens(4, 8, 0), whole_tokens(30, 8, 1)
    index = ExactIndex(documents)
    index.save(tmp_path / "index")
    loaded = ExactIndex.load(tmp_path / "index")
    assert isinstance(loaded.documents.values, np.memmap)
    assert isinstance(loaded, LateInteractionIndex)
    assert loaded.num_bytes == index.num_bytes == documents.values.nbytes
    assert [path.suffix for path in (tmp_path / "index").iterdir() if "json" not in path.name] == [
        ".npy"
    ] * 3
    expected = index.search(queries, 5)
    found = loaded.search(queries, 5)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_saving_again_replaces_the_index_and_leaves_nothing_else(tmp_path):
    ExactIndex(whole_tokens(30, 8, 1)).save(tmp_path / "index")
    ExactIndex(ExactIndex.load(tmp_path / "index").documents.part(0, 7)).save(tmp_path / "index")
    assert len(ExactIndex.load(tmp_path / "index").documents) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_save_that_fails_leaves_the_old_index_as_it_was(tmp_path, monkeypatch):
    ExactIndex(whole_tokens(30, 8, 1)).save(tmp_path / "index")

    def full_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(UserError, match="cannot be written: the disk is full"):
        ExactIndex(whole_tokens(3, 8, 1)).save(tmp_path / "index")
    assert len(ExactIndex.load(tmp_path / "index").documents) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_folder_with_other_files_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("my life's work")
    with pytest.raises(UserError, match="holds other files than an index"):
        ExactIndex(whole_tokens(3, 8, 1)).save(tmp_path)
    assert (tmp_path / "thesis.txt").is_file()


def test_a_folder_that_is_no_index_or_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a saved index"):
        ExactIndex.load(tmp_path / "absent")
    ExactIndex(whole_tokens(3, 8, 1)).save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "index.json").read_text())
    for changed, message in (
        ({"kind": "fde"}, "does not hold an index of kind exact; got 'fde'"),
        ({"format": 99}, "is not of format 1; got 99"),
    ):
        (tmp_path / "index" / "index.json").write_text(json.dumps({**manifest, **changed}))
        with pytest.raises(UserError, match=message):
            ExactIndex.load(tmp_path / "index")


def test_a_damaged_file_is_named(tmp_path):
    ExactIndex(whole_tokens(3, 8, 1)).save(tmp_path / "index")
    (tmp_path / "index" / "values.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"values\.npy cannot be read"):
        ExactIndex.load(tmp_path / "index")


def test_a_nan_is_the_users_mistake():
    documents = whole_tokens(10, 4, 0)
    documents.values[3, 1] = np.nan
    with pytest.raises(UserError, match="a score that is NaN"):
        ExactIndex(documents).search(whole_tokens(2, 4, 1), 5)


@pytest.mark.parametrize(
    ("queries", "num_results", "message"),
    [
        (TokenVectors(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)), 5, "has no queries"),
        (whole_tokens(1, 5, 0), 5, "documents have 4, queries; got 5. Encode both"),
        (whole_tokens(1, 4, 0), 0, "num_results must be at least 1; got 0"),
        (
            TokenVectors(np.ones((1, 4), np.float32), np.array([1]), cls=np.ones((1, 2))),
            5,
            "cls vectors of one dimension; documents have 0, queries; got 2",
        ),
        (
            TokenVectors(
                np.ones((1, 4), np.float32), np.array([1]), np.array([1]), exact_match=True
            ),
            5,
            "one setting of exact_match; documents have False, queries; got True",
        ),
    ],
)
def test_a_search_that_cannot_be_done_is_refused(queries, num_results, message):
    with pytest.raises(UserError, match=message):
        ExactIndex(whole_tokens(3, 4, 1)).search(queries, num_results)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (TokenVectors(np.ones((3, 2), np.float32), np.array([1, 1])), "needs 2 rows of values"),
        (TokenVectors(np.ones((0, 2), np.float32), np.zeros(0, np.int64)), "has no documents"),
        (TokenVectors(np.ones((1, 2)), np.array([1]), exact_match=True), "needs ids"),
    ],
)
def test_documents_that_do_not_fit_together_are_refused(documents, message):
    with pytest.raises(UserError, match=message):
        ExactSearch().build(documents)


def test_memory_is_bounded_by_a_block_whatever_the_corpus(monkeypatch):
    sizes = []
    scored = late_interaction.all_scores

    def watched(query, document):
        sizes.append(len(document.tokens))
        return scored(query, document)

    monkeypatch.setattr(late_interaction, "all_scores", watched)
    documents = whole_tokens(200, 4, 0)
    ExactIndex(documents, block_tokens=32).search(whole_tokens(2, 4, 1), 5)
    assert max(sizes) <= 32
    assert sum(sizes) == len(documents.values)


@given(lengths=st.lists(st.integers(0, 9), max_size=30), tokens=st.integers(1, 20))
def test_blocks_cover_all_texts_once_and_hold_few_tokens(lengths, tokens):
    array = np.array(lengths, dtype=np.int64)
    blocks = list(cut_blocks(array, tokens))
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(len(array)))
    assert all(array[a:b].sum() <= tokens or b - a == 1 for a, b in blocks)


def test_half_precision_is_scored_in_float32():
    queries, documents = whole_tokens(3, 8, 0), whole_tokens(20, 8, 1)
    half = TokenVectors(documents.values.astype(np.float16), documents.lengths)
    result = ExactIndex(half, device=torch.device("cpu")).search(queries, 5)
    np.testing.assert_array_equal(result.scores, ExactIndex(documents).search(queries, 5).scores)
    assert ExactIndex(half).num_bytes * 2 == ExactIndex(documents).num_bytes
