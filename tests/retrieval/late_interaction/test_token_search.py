"""Search over tokens: candidates for exact scores, and XTR's scores with imputation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import (
    best_by_sorting,
    maxsim_in_loops,
    noisy_queries,
    texts_of,
    topical_tokens,
    whole_tokens,
)

from embedtrain.errors import UserError
from embedtrain.retrieval.late_interaction import token_search
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.retrieval.late_interaction.rerank import recall_against_exact
from embedtrain.retrieval.late_interaction.token_search import (
    TokenIndex,
    TokenSearch,
    XtrIndex,
    XtrSearch,
)
from embedtrain.types import TokenVectors

TOY_QUERY = TokenVectors(np.eye(2, dtype=np.float32), np.array([2]))
TOY_DOCUMENTS = TokenVectors(
    np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32), np.array([2, 2])
)


@pytest.mark.parametrize(
    ("num_tokens", "scores"),
    [
        # m = (1.0, 1.0): each query token retrieves one token, of another document.
        (1, [[1.0, 1.0]]),
        # m = (0.6, 0.8): d2 lacks the first query token, so (0.6 + 1.0) / 2.
        (2, [[0.9, 0.8]]),
        # m = (0.0, 0.0): all that counts is retrieved, so MaxSim / 2.
        (3, [[0.9, 0.5]]),
        (4, [[0.9, 0.5]]),
    ],
)
def test_the_toy_of_the_method_notes_is_scored_by_hand(num_tokens, scores):
    result = XtrSearch(num_tokens=num_tokens).build(TOY_DOCUMENTS).search(TOY_QUERY, 5)
    assert result.indices.tolist() == [[0, 1]]
    np.testing.assert_allclose(result.scores, scores, atol=1e-6)


def xtr_in_loops(queries, documents, num_tokens):
    """The definition; documents without a retrieved token score -inf."""
    owners = np.repeat(np.arange(len(documents)), documents.lengths)
    scores = np.full((len(queries), len(documents)), -np.inf)
    for number, query in enumerate(texts_of(queries)):
        kept, last = [], []
        for token in query:
            similarity = documents.values @ token
            best = np.argsort(-similarity, kind="stable")[:num_tokens]
            kept.append([(owners[place], similarity[place]) for place in best])
            last.append(similarity[best[-1]])
        for document in {owner for hits in kept for owner, _ in hits}:
            parts = [
                max((score for owner, score in hits if owner == document), default=missing)
                for hits, missing in zip(kept, last, strict=True)
            ]
            scores[number, document] = np.mean(parts)
    return scores


@settings(max_examples=40, deadline=None)
@given(
    num_tokens=st.integers(1, 60),
    num_results=st.integers(1, 12),
    hits_at_once=st.sampled_from([1, 100, 2**22]),
    seed=st.integers(0, 1000),
)
def test_xtr_scores_are_those_of_the_definition(num_tokens, num_results, hits_at_once, seed):
    # Real numbers: no two tokens tie at the place where retrieval ends.
    random = np.random.default_rng(seed)
    queries, documents = (
        replace(texts, values=random.normal(size=texts.values.shape).astype(np.float32))
        for texts in (whole_tokens(3, 4, seed), whole_tokens(9, 4, seed + 1, shortest=0))
    )
    if not len(documents.values):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_search, "HITS_AT_ONCE", hits_at_once)
        result = XtrSearch(num_tokens=num_tokens).build(documents).search(queries, num_results)
    truth = xtr_in_loops(queries, documents, num_tokens)
    indices, scores = best_by_sorting(truth, num_results)
    np.testing.assert_array_equal(result.indices, np.where(np.isinf(scores), -1, indices))
    np.testing.assert_allclose(result.scores, scores, atol=1e-5)


def test_with_all_tokens_retrieved_xtr_is_maxsim_over_the_query_length():
    queries, documents = whole_tokens(5, 4, 0), whole_tokens(12, 4, 1)
    result = XtrSearch(num_tokens=1000).build(documents).search(queries, 12)
    truth = maxsim_in_loops(queries, documents) / queries.lengths[:, None]
    np.testing.assert_allclose(
        result.scores, np.take_along_axis(truth, result.indices, axis=1), atol=1e-6
    )
    assert (np.sort(result.indices, axis=1) == np.arange(12)).all()


def test_all_documents_as_candidates_give_the_exact_result():
    queries, documents = whole_tokens(6, 8, 0), whole_tokens(40, 8, 1)
    index = TokenSearch(num_tokens=1000, num_candidates=40).build(documents)
    exact = ExactIndex(documents).search(queries, 10)
    found = index.search(queries, 10)
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_array_equal(found.scores, exact.scores)


def test_more_tokens_and_more_candidates_find_more():
    documents = topical_tokens(200, 32, 0, length=20)
    queries, _ = noisy_queries(documents, 40, 8, noise=0.2, seed=1)
    exact = ExactIndex(documents)
    index = TokenSearch(num_tokens=4).build(documents)

    def recall(num_tokens, num_candidates):
        changed = replace(index, num_tokens=num_tokens, num_candidates=num_candidates)
        return recall_against_exact(changed, exact, queries, 10)

    assert recall(4, 200) < recall(16, 200) < recall(4000, 200) == 1.0
    assert recall(64, 10) < recall(64, 40)


def test_clusters_of_tokens_find_most_and_may_find_nothing():
    documents = topical_tokens(200, 32, 0, length=20)
    queries, _ = noisy_queries(documents, 40, 8, noise=0.2, seed=1)
    exact = ExactIndex(documents)
    index = TokenSearch(
        num_tokens=64, num_candidates=40, factory="IVF16,Flat", parameters="nprobe=2"
    ).build(documents)
    assert 0.6 < recall_against_exact(index, exact, queries, 10) < 1.0
    few = XtrSearch(factory="IVF64,Flat").build(documents).search(queries, 200)
    assert (few.indices[:, -1] == -1).all()
    assert np.isneginf(few.scores[few.indices == -1]).all()


def test_a_query_token_that_retrieves_nothing_adds_nothing():
    hits = np.array([[3, 5, 3], [-1, -1, -1], [5, -1, -1]])
    scores = np.array([[0.9, 0.8, 0.2], [-np.inf] * 3, [0.6, -np.inf, -np.inf]], np.float32)
    documents, imputed = token_search._impute(hits, scores)
    assert documents.tolist() == [3, 5]
    np.testing.assert_allclose(imputed, [(0.9 + 0.6) / 3, (0.8 + 0.6) / 3], atol=1e-6)


def test_a_query_without_tokens_retrieves_nothing():
    queries = TokenVectors(np.eye(2, dtype=np.float32), np.array([0, 2, 0]))
    found = XtrSearch(num_tokens=2).build(TOY_DOCUMENTS).search(queries, 2)
    assert found.indices.tolist() == [[-1, -1], [0, 1], [-1, -1]]


def test_cls_vectors_propose_candidates_too():
    random = np.random.default_rng(0)
    documents = TokenVectors(
        random.normal(size=(30, 4)).astype(np.float32),
        np.ones(30, np.int64),
        cls=100 * random.normal(size=(30, 3)),
    )
    queries = TokenVectors(
        np.ones((1, 4), np.float32), np.array([1]), cls=random.normal(size=(1, 3))
    )
    index = TokenSearch(num_tokens=1, num_candidates=1).build(documents)
    best_by_cls = int((documents.cls @ queries.cls[0]).argmax())
    assert best_by_cls in index.search(queries, 2).indices[0]
    with pytest.raises(UserError, match="xtr has no place for cls vectors"):
        XtrSearch().build(documents)


@pytest.mark.parametrize("search", [TokenSearch(num_tokens=9), XtrSearch(num_tokens=9)])
def test_a_saved_index_finds_the_same(tmp_path, search):
    queries, documents = whole_tokens(4, 8, 0), whole_tokens(30, 8, 1)
    index = search.build(documents)
    index.save(tmp_path / "index")
    loaded = {"tokens": TokenIndex, "xtr": XtrIndex}[search.name].load(tmp_path / "index")
    assert loaded.num_bytes == index.num_bytes
    expected, found = index.search(queries, 5), loaded.search(queries, 5)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_xtr_keeps_no_vectors_beside_its_index(tmp_path):
    XtrSearch().build(whole_tokens(30, 8, 1)).save(tmp_path / "index")
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [
        "index.json",
        "lengths.npy",
        "tokens.faiss",
    ]


@pytest.mark.parametrize("search", [TokenSearch(), XtrSearch()])
def test_what_cannot_be_searched_is_refused(search):
    documents = whole_tokens(3, 4, 0)
    with pytest.raises(UserError, match="cannot follow exact_match"):
        search.build(replace(documents, exact_match=True))
    with pytest.raises(UserError, match="num_results must be at least 1"):
        search.build(documents).search(documents, 0)
    with pytest.raises(UserError, match="dimension"):
        search.build(documents).search(whole_tokens(2, 5, 0), 1)
