"""A sparse model under evaluation: searches, pairs, candidates."""

import numpy as np
import pytest
from sparse_toys import TEXTS, weights_of

from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.reranking import score_candidates
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder


@pytest.fixture(scope="module")
def weights(sparse_model):
    model = load_encoder(sparse_model)
    return {side: weights_of(model, TEXTS, side).double().numpy() for side in ("query", "document")}


@pytest.fixture
def subject(sparse_model, tmp_path):
    return Subject(load_encoder(sparse_model), "toy", tmp_path)


def test_search_orders_by_inner_products(subject, weights):
    found = subject.search(TEXTS, TEXTS, 3, "query")
    products = weights["query"] @ weights["document"].T
    np.testing.assert_allclose(found.scores, -np.sort(-products, axis=1), rtol=1e-5)


def test_texts_are_compared_in_both_directions(subject, weights):
    first, second = TEXTS[:2], TEXTS[1:]
    queries, documents = weights["query"], weights["document"]
    one = (queries[:2] * documents[1:]).sum(axis=1)
    other = (queries[1:] * documents[:2]).sum(axis=1)
    expected = (one + other) / 2
    np.testing.assert_allclose(subject.similarities(first, second), expected, rtol=1e-5)


def test_candidates_are_scored_by_inner_products(subject, weights):
    candidates = {"q": {"a": TEXTS[1], "b": TEXTS[2], "again": TEXTS[1]}}
    run = score_candidates(subject, {"q": TEXTS[0]}, candidates)["q"]
    products = weights["query"][0] @ weights["document"].T
    assert run == pytest.approx(
        {"a": products[1], "b": products[2], "again": products[1]}, rel=1e-5
    )


def test_tasks_of_plain_vectors_refuse_it(subject):
    with pytest.raises(UserError, match="needs one vector of plain numbers per text"):
        subject.features(TEXTS, "clustering")
