"""Feedback: what is added to a query, by hand and in its effects on ranks."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from token_toys import noisy_queries, topical_tokens, unit_tokens, whole_tokens

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.dense.faiss_index import build_index
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.retrieval.late_interaction.feedback import (
    Feedback,
    expand_queries,
    search_with_feedback,
)
from embedtrain.types import TokenVectors


def found(*rows):
    return SearchResult(np.array(rows), np.zeros((len(rows), len(rows[0])), np.float32))


@pytest.fixture(scope="module")
def corpus():
    documents = topical_tokens(60, 32, 0, length=20)
    ids = np.random.default_rng(0).integers(0, 200, size=len(documents.values))
    documents = replace(documents, ids=ids)
    queries, answers = noisy_queries(documents, 20, 6, noise=0.6, seed=1)
    return queries, documents, answers


@pytest.mark.parametrize("second_pass", ["search", "rerank"])
def test_with_beta_zero_scores_are_those_of_the_first_search(corpus, second_pass):
    queries, documents, _ = corpus
    index = ExactIndex(documents)
    feedback = Feedback(beta=0, second_pass=second_pass)
    first = index.search(queries, 10)
    again = search_with_feedback(index, queries, documents, 10, feedback)
    np.testing.assert_array_equal(again.indices, first.indices)
    np.testing.assert_allclose(again.scores, first.scores, atol=1e-6)


def test_feedback_of_the_relevant_document_never_lowers_its_rank(corpus):
    queries, documents, answers = corpus
    index = ExactIndex(documents)
    longer = expand_queries(queries, documents, found(*answers[:, None]), Feedback())
    ranks = [
        (index.search(texts, 60).indices == answers[:, None]).argmax(axis=1)
        for texts in (queries, longer)
    ]
    assert (ranks[1] <= ranks[0]).all()
    assert (ranks[1] < ranks[0]).any()


def test_the_rarest_tokens_are_added_with_their_idf_by_hand():
    axes = np.eye(4, dtype=np.float32)
    documents = TokenVectors(
        axes[[0, 1, 2, 0, 3, 0, 1]], np.array([3, 2, 2]), np.array([10, 11, 12, 10, 13, 10, 11])
    )
    queries = TokenVectors(axes[:1], np.array([1]), np.array([10]))
    feedback = Feedback(
        num_documents=1, num_clusters=3, num_neighbors=1, num_expansions=2, beta=0.5
    )
    longer = expand_queries(queries, documents, found([0, 1, 2]), feedback)
    # The document's three tokens are three clusters; in 3, 2 and 1 of 3 texts.
    assert longer.ids.tolist() == [10, 12, 11]
    assert longer.lengths.tolist() == [3]
    expected = np.stack([axes[0], 0.5 * np.log(4 / 2) * axes[2], 0.5 * np.log(4 / 3) * axes[1]])
    np.testing.assert_allclose(longer.values, expected, atol=1e-6)
    ignoring = feedback.model_copy(update={"ignored_ids": (12,)})
    longer = expand_queries(queries, documents, found([0, 1, 2]), ignoring)
    assert longer.ids.tolist() == [10, 11, 10]


def test_a_centroid_stands_for_the_commonest_of_its_neighbors():
    documents = TokenVectors(
        np.array([[1, 0], [0.9, 0.1], [0.9, 0.2], [0.9, 0.3], [0, 1]], np.float32),
        np.array([1, 1, 1, 1, 1]),
        np.array([1, 2, 3, 2, 4]),
    )
    queries = TokenVectors(documents.values[:1], np.array([1]), np.array([1]))
    feedback = Feedback(num_documents=1, num_neighbors=4)
    assert expand_queries(queries, documents, found([0]), feedback).ids.tolist() == [1, 2]


def test_centroids_are_of_unit_length_with_cosine_only(corpus):
    queries, documents, _ = corpus
    first = ExactIndex(documents).search(queries, 3)
    for similarity, of_unit_length in (("cosine", True), ("dot", False)):
        feedback = Feedback(similarity=similarity, num_clusters=12)
        longer = expand_queries(queries, documents, first, feedback)
        assert longer.lengths.tolist() == [6 + 10] * 20
        part = longer.part(0, 1).values[6:]
        idf = np.log(61 / (1 + np.arange(1, 20)))
        lengths = np.linalg.norm(part, axis=1)
        fits = np.isclose(lengths[:, None], idf, atol=1e-4).any(axis=1)
        assert fits.all() == of_unit_length


def test_the_same_seed_adds_the_same_vectors(corpus):
    queries, documents, _ = corpus
    first = ExactIndex(documents).search(queries, 3)
    values = [
        expand_queries(queries, documents, first, Feedback(seed=seed)).values for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(values[0], values[1])
    assert not np.array_equal(values[0], values[2])


def test_an_index_of_tokens_finds_the_same_neighbors(corpus):
    queries, documents, _ = corpus
    index = ExactIndex(documents)
    # Few clusters: a centroid of two tokens is as far from one as from the other, up to rounding.
    feedback = Feedback(num_clusters=3, num_expansions=3)
    direct = search_with_feedback(index, queries, documents, 5, feedback)
    by_index = search_with_feedback(
        index, queries, documents, 5, feedback, token_index=build_index(documents.values)
    )
    np.testing.assert_array_equal(by_index.indices, direct.indices)


def test_each_query_is_expanded_by_its_own_documents(corpus):
    queries, documents, _ = corpus
    first = ExactIndex(documents).search(queries, 3)
    feedback = Feedback(num_clusters=4, num_expansions=3)
    together = expand_queries(queries, documents, first, feedback)
    for number in (0, 7, 19):
        own = SearchResult(first.indices[[number]], first.scores[[number]])
        alone = expand_queries(queries.part(number, number + 1), documents, own, feedback)
        np.testing.assert_allclose(
            alone.values, together.part(number, number + 1).values, atol=1e-6
        )


def test_a_query_that_found_nothing_stays_as_it_is():
    queries, documents = whole_tokens(2, 4, 0), whole_tokens(5, 4, 1)
    longer = expand_queries(queries, documents, found([-1, -1], [0, -1]), Feedback())
    assert longer.lengths[0] == queries.lengths[0]
    assert longer.lengths[1] > queries.lengths[1]


def test_what_cannot_be_expanded_is_refused():
    documents = unit_tokens(3, 4, 0)
    with pytest.raises(UserError, match="feedback needs ids"):
        expand_queries(documents, replace(documents, ids=None), found([0]), Feedback())
    with pytest.raises(ValidationError, match="num_expansions must not be larger"):
        Feedback(num_expansions=30)
