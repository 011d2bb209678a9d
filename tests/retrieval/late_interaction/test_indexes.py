"""Every kind of index through one door."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from token_toys import noisy_queries, topical_tokens, whole_tokens

from embedtrain.errors import UserError
from embedtrain.retrieval.late_interaction.exact import LateInteractionIndex
from embedtrain.retrieval.late_interaction.indexes import (
    INDEXES,
    LateInteractionSearch,
    build_late_interaction_index,
    load_late_interaction_index,
)

SETTINGS = TypeAdapter(LateInteractionSearch)
KINDS = ["exact", "fde", "tokens", "xtr", "binary"]


def parse(**settings):
    return SETTINGS.validate_python(settings)


@pytest.fixture(scope="module")
def corpus():
    documents = topical_tokens(80, 16, 0, length=12)
    queries, answers = noisy_queries(documents, 20, 6, noise=0.1, seed=1)
    return queries, documents, answers


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_answers_is_saved_and_loaded_by_its_folder_alone(tmp_path, corpus, kind):
    queries, documents, answers = corpus
    index, report = build_late_interaction_index(documents, parse(name=kind), queries=queries)
    assert index.kind == report.kind == kind
    found = index.search(queries, 5)
    assert found.indices.shape == found.scores.shape == (20, 5)
    assert (found.indices == answers[:, None]).any(axis=1).mean() > 0.9
    assert (np.diff(found.scores, axis=1) <= 0).all()
    index.save(tmp_path / "index")
    loaded = load_late_interaction_index(tmp_path / "index")
    assert isinstance(loaded, LateInteractionIndex)
    assert type(loaded) is type(index)
    again = loaded.search(queries, 5)
    np.testing.assert_array_equal(again.indices, found.indices)
    np.testing.assert_array_equal(again.scores, found.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_more_results_than_documents_are_all_documents_at_most(corpus, kind):
    queries, documents, _ = corpus
    index, _ = build_late_interaction_index(documents, parse(name=kind), queries=queries)
    found = index.search(queries, 1000)
    assert found.indices.shape == (20, 80)
    for row in found.indices:
        assert len(np.unique(row[row >= 0])) == (row >= 0).sum()


def test_every_kind_has_its_own_name():
    assert len({index.kind for index in INDEXES}) == len(INDEXES)


def test_cost_and_recall_are_measured_and_logged(corpus, caplog):
    queries, documents, _ = corpus
    search = parse(name="fde", repetitions=1, bits=1, inner_dim=2, num_candidates=10)
    with caplog.at_level(logging.INFO):
        index, report = build_late_interaction_index(documents, search, queries=queries)
    assert 0 < report.recall < 1
    assert report.num_bytes == index.num_bytes
    assert report.bytes_per_document == index.num_bytes / 80
    assert report.num_queries == 20
    assert not report.queries_are_documents
    assert str(report) in caplog.text
    assert f"finds {report.recall:.1%} of the exact best 10 (20 queries)" in str(report)
    _, exact = build_late_interaction_index(documents, parse(name="exact"))
    assert exact.recall == 1.0


def test_without_queries_the_beginnings_of_documents_stand_in_for_them():
    documents = replace(whole_tokens(150, 8, 0, longest=50), ids=None)
    _, report = build_late_interaction_index(documents, parse(name="tokens"), num_results=200)
    assert report.queries_are_documents
    assert report.num_queries == 100
    assert report.num_results == 150
    assert "100 beginnings of documents" in str(report)


def test_the_same_seed_measures_the_same(corpus):
    _, documents, _ = corpus
    search = parse(name="binary")
    first, again = (build_late_interaction_index(documents, search, seed=3)[1] for _ in range(2))
    assert first.recall == again.recall


def test_settings_with_an_unknown_name_or_key_are_refused():
    with pytest.raises(ValidationError, match="'exact', 'fde', 'tokens', 'xtr', 'binary'"):
        parse(name="plaid")
    with pytest.raises(ValidationError, match="Extra inputs"):
        parse(name="fde", repetition=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_that_lacks_something_is_the_users_mistake(tmp_path, kind):
    index, _ = build_late_interaction_index(whole_tokens(9, 4, 0), parse(name=kind))
    index.save(tmp_path / "x")
    manifest = tmp_path / "x" / "index.json"
    manifest.write_text(json.dumps({"format": 1, "kind": kind}))
    with pytest.raises(UserError, match=r"index\.json lacks"):
        load_late_interaction_index(tmp_path / "x")


def test_a_folder_of_an_unknown_kind_is_refused(tmp_path):
    build_late_interaction_index(whole_tokens(3, 4, 0), parse(name="exact"))[0].save(tmp_path / "x")
    manifest = tmp_path / "x" / "index.json"
    manifest.write_text(manifest.read_text().replace('"exact"', '"quantum"'))
    with pytest.raises(UserError, match="unknown kind; got 'quantum'"):
        load_late_interaction_index(tmp_path / "x")
