"""Exact re-ranking of candidates, and recall of an index against exact search."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import best_by_sorting, maxsim_in_loops, texts_of, whole_tokens

from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.late_interaction import rerank as rerank_module
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.retrieval.late_interaction.rerank import recall_against_exact, rerank
from embedtrain.types import TokenVectors


@dataclass
class Half:
    """Finds the even documents only."""

    exact: ExactIndex
    kind: str = "half"
    num_bytes: int = 0

    def search(self, queries: TokenVectors, num_results: int) -> SearchResult:
        even = np.arange(0, len(self.exact.documents), 2)
        candidates = np.tile(even, (len(queries), 1))
        return rerank(queries, self.exact.documents, candidates, num_results)

    def save(self, folder: Path) -> None:
        raise NotImplementedError


def test_selected_texts_come_in_the_order_asked_for():
    documents = whole_tokens(9, 3, 0, shortest=0)
    chosen = documents.select(np.array([5, 0, 5, 3]))
    for text, row in zip(texts_of(chosen), [5, 0, 5, 3], strict=True):
        np.testing.assert_array_equal(text, texts_of(documents)[row])


@settings(max_examples=20, deadline=None)
@given(
    num_results=st.integers(1, 12), block_tokens=st.sampled_from([1, 9, 999]), seed=st.integers(0)
)
def test_all_documents_as_candidates_give_the_exact_result(num_results, block_tokens, seed):
    seed %= 1000
    queries, documents = whole_tokens(3, 4, seed), whole_tokens(10, 4, seed + 1, shortest=0)
    candidates = np.tile(np.random.default_rng(seed).permutation(10), (3, 1))
    with_blocks, rerank_module.BLOCK_TOKENS = rerank_module.BLOCK_TOKENS, block_tokens
    try:
        result = rerank(queries, documents, candidates, num_results)
    finally:
        rerank_module.BLOCK_TOKENS = with_blocks
    indices, scores = best_by_sorting(maxsim_in_loops(queries, documents), num_results)
    np.testing.assert_array_equal(result.indices, indices)
    np.testing.assert_array_equal(result.scores, scores)


def test_places_without_a_candidate_stay_unused_and_repeats_count_once():
    queries, documents = whole_tokens(2, 4, 0), whole_tokens(10, 4, 1)
    candidates = np.array([[7, -1, 7, 2], [-1, -1, -1, -1]])
    result = rerank(queries, documents, candidates, 3)
    assert sorted(result.indices[0].tolist()) == [-1, 2, 7]
    assert result.indices[0, 2] == -1
    assert result.indices[1].tolist() == [-1] * 3
    assert np.isneginf(result.scores[1]).all()


def test_recall_counts_the_exact_documents_that_an_index_finds():
    queries, documents = whole_tokens(50, 6, 0), whole_tokens(40, 6, 1)
    exact = ExactIndex(documents)
    assert recall_against_exact(exact, exact, queries, 10) == 1.0
    truth, _ = best_by_sorting(maxsim_in_loops(queries, documents), 10)
    even = (truth % 2 == 0).mean()
    found = recall_against_exact(Half(exact), exact, queries, 10)
    assert even <= found <= even + 0.1  # ties with the last exact document count as found


def test_recall_of_identical_documents_is_whole_whichever_are_found():
    documents = whole_tokens(1, 4, 0).select(np.zeros(12, dtype=np.int64))
    exact = ExactIndex(documents)
    assert recall_against_exact(Half(exact), exact, whole_tokens(3, 4, 2), 4) == 1.0


def test_recall_is_the_same_for_the_same_seed():
    queries, documents = whole_tokens(50, 6, 0), whole_tokens(40, 6, 1)
    exact = ExactIndex(documents)
    measured = [
        recall_against_exact(Half(exact), exact, queries, 5, num_queries=7, seed=seed)
        for seed in (0, 0, 1, 2)
    ]
    assert measured[0] == measured[1]
    assert len(set(measured)) > 1
