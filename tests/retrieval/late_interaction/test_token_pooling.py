"""Token pooling against scipy on its own terms, and the controls at equal numbers of vectors."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from token_toys import texts_of, topical_tokens, unit_tokens, whole_tokens

from embedtrain.errors import UserError
from embedtrain.ops.maxsim import token_clusters
from embedtrain.ops.maxsim.token_clusters import pooled_labels
from embedtrain.retrieval.late_interaction.token_pooling import (
    keep_first,
    pool_tokens,
)
from embedtrain.types import TokenVectors


def normals(num_tokens, seed=0, dim=6):
    return np.random.default_rng(seed).normal(size=(num_tokens, dim)).astype(np.float32)


def same_groups(first, second):
    return (first[:, None] == first).tolist() == (second[:, None] == second).tolist()


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_clusters_are_those_of_ward_on_cosine_distances_without_the_first_token(factor):
    text = normals(41)
    tree = linkage(pdist(text[1:].astype(np.float64), "cosine"), method="ward")
    expected = fcluster(tree, t=40 // factor, criterion="maxclust")
    labels = pooled_labels(text, factor)
    assert labels[0] == 0
    assert (labels[1:] != 0).all()
    assert same_groups(labels[1:], expected)


@settings(max_examples=60, deadline=None)
@given(
    num_tokens=st.integers(0, 70),
    factor=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_protected_tokens_stay_and_the_rest_shrinks_by_the_factor(num_tokens, factor, seed):
    text = normals(num_tokens, seed)
    labels = pooled_labels(text, factor)
    protected = min(1, num_tokens)
    rest = num_tokens - protected
    assert labels[:protected].tolist() == list(range(protected))
    num_clusters = len(np.unique(labels))
    assert num_clusters <= protected + (max(rest // factor, 1) if rest else 0)
    # Numbered by first occurrence, without gaps.
    seen = list(dict.fromkeys(labels.tolist()))
    assert seen == list(range(num_clusters))


def test_factor_one_changes_nothing():
    texts = whole_tokens(5, 4, 0, shortest=0)
    pooled = pool_tokens(texts, 1)
    np.testing.assert_array_equal(pooled.values, texts.values)
    np.testing.assert_array_equal(pooled.lengths, texts.lengths)


def test_a_pooled_text_is_its_first_token_and_the_normalised_means_of_the_rest():
    texts = unit_tokens(3, 8, 0, length=13)
    pooled = pool_tokens(texts, 3)
    for text, short in zip(texts_of(texts), texts_of(pooled), strict=True):
        labels = pooled_labels(text, 3)
        assert len(short) == 1 + 12 // 3
        np.testing.assert_array_equal(short[0], text[0])
        means = np.stack([text[labels == label].mean(axis=0) for label in range(5)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        np.testing.assert_allclose(short, means, atol=1e-6)


def test_pooling_halves_and_quarters_the_vectors_and_keeps_their_type():
    texts = topical_tokens(10, 16, 0, length=41)
    half = replace(texts, values=texts.values.astype(np.float16))
    for factor in (2, 4):
        pooled = pool_tokens(half, factor)
        assert pooled.lengths.tolist() == [1 + 40 // factor] * 10
        assert pooled.values.dtype == np.float16
        np.testing.assert_allclose(np.linalg.norm(pooled.values, axis=1), 1, atol=2e-3)


def test_equal_tokens_are_joined_before_others():
    text = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    labels = pooled_labels(np.concatenate([text[:1], text]), 3).tolist()
    assert labels == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_a_long_text_is_clustered_in_parts_within_the_same_budget(monkeypatch):
    linked = []
    cluster = token_clusters._cluster

    def watched(vectors, num_clusters):
        linked.append(len(vectors))
        return cluster(vectors, num_clusters)

    monkeypatch.setattr(token_clusters, "_cluster", watched)
    labels = pooled_labels(normals(1200), 7)
    assert max(linked) <= 512
    assert sum(linked) == 1199
    assert len(np.unique(labels)) <= 1 + 1199 // 7


def test_a_vector_of_zeros_is_no_reason_to_fail():
    text = normals(9)
    text[4] = 0
    assert len(np.unique(pooled_labels(text, 2))) == 5
    assert np.isfinite(pool_tokens(TokenVectors(text, np.array([9])), 8).values).all()


@pytest.mark.parametrize("factor", [0, 257])
def test_a_factor_of_no_use_is_refused(factor):
    with pytest.raises(UserError, match="needs a factor between 1 and 256"):
        pooled_labels(normals(9), factor)


def test_joining_words_that_are_matched_by_id_is_refused():
    with pytest.raises(UserError, match="different words"):
        pool_tokens(replace(whole_tokens(2, 4, 0), exact_match=True), 2)


def test_the_first_tokens_are_kept_by_hand():
    ids = np.array([0, 3, 1, 2, 0, 1, 3, 0, 1, 1])
    texts = TokenVectors(np.arange(10, dtype=np.float32)[:, None], np.array([4, 3, 3]), ids)
    first = keep_first(texts, np.array([2, 3, 1]))
    assert first.values[:, 0].tolist() == [0, 1, 4, 5, 6, 7]
    assert first.ids.tolist() == [0, 3, 0, 1, 3, 0]
