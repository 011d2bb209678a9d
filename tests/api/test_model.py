"""Models that are loaded into Python."""

import pickle

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import embedtrain
from embedtrain.models.build import build_dense, save_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.types import TokenVectors

TEXTS = ["red cat runs", "the small blue bird sleeps near a large tree", "dog"]


@pytest.fixture(scope="module")
def folder(bert, tmp_path_factory):
    """A dense model with a prompt for each side."""
    config = DenseConfig(
        backbone=bert,
        query={"prompt": "query: ", "length": 16},
        document={"prompt": "passage: ", "length": 16},
    )
    folder = tmp_path_factory.mktemp("dense")
    save_dense(build_dense(config, "cpu"), folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return embedtrain.load(folder)


def test_vectors_are_those_of_sentence_transformers(model, folder):
    theirs = SentenceTransformer(str(folder), device="cpu")
    queries, documents = model.encode_queries(TEXTS), model.encode_documents(TEXTS)
    assert np.abs(queries - theirs.encode_query(TEXTS)).max() < 1e-6
    assert np.abs(documents - theirs.encode_document(TEXTS)).max() < 1e-6
    assert np.abs(queries - documents).max() > 1e-3, "the prompts differ"


def scores_by_hand(model, query, texts):
    """Return the inner product, or the sum of each query vector's best one, of each text."""
    asked, answers = model.encode_queries([query]), model.encode_documents(texts)
    if isinstance(asked, np.ndarray):
        return (answers @ asked[0]).tolist()
    parts = np.split(answers.values, answers.lengths.cumsum()[:-1])
    return [float((asked.values @ part.T).max(1).sum()) for part in parts]


@pytest.mark.parametrize("kind", ["dense", "late_interaction"])
def test_search_ranks_texts_a_dict_and_an_index_by_the_models_own_score(
    kind, model, late_interaction
):
    one = model if kind == "dense" else embedtrain.load(late_interaction)
    named = {"x": "red cat", "y": "a large tree", "z": "the blue bird sleeps"}
    index = one.index(named)
    assert len(index) == 3
    expected = dict(zip(named, scores_by_hand(one, "tree", index.texts), strict=True))
    best = sorted(named, key=expected.__getitem__, reverse=True)
    hits = one.search("tree", index, top=9)
    assert [hit.document_id for hit in hits] == best
    assert [hit.score for hit in hits] == pytest.approx([expected[name] for name in best], abs=1e-5)
    assert [(hit.rank, hit.text) for hit in hits] == [(n, named[i]) for n, i in enumerate(best, 1)]
    assert one.search("tree", named, top=2) == hits[:2]
    several = one.search(["red", "tree"], index.texts, top=1)
    assert [hit.text for hit in several[1]] == [named[best[0]]]
    assert several[1][0].document_id == str(list(named).index(best[0]))


def test_a_late_interaction_model_gives_a_vector_per_token(late_interaction):
    model = embedtrain.load(late_interaction)
    vectors = model.encode_documents(TEXTS)
    assert isinstance(vectors, TokenVectors)
    assert len(vectors) == 3
    assert len(vectors.values) == vectors.lengths.sum()


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            "red cat",
            r"^texts must be a list of one or more texts; got 'red cat'\. Give \[text\]\.$",
        ),
        ([], r"^texts must be a list"),
        (None, r"^texts must be a list of one or more texts; got None\. Give \[text\]\.$"),
        ({"a": "red"}, r"^texts must be a list .*; got \{'a': 'red'\}"),
        ([None], r"^texts\[0\] is no text; got None\. Give a text\.$"),
        (["red", 3], r"^texts\[1\] is no text; got 3\."),
        (["red", ""], r"^query 2 is empty"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(model, texts, message):
    with pytest.raises(embedtrain.UserError, match=message):
        model.encode_queries(texts)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        (None, ["a"], r"^query must be a list .*; got None\. Give a text or \[text\]\.$"),
        (["x", None], ["a"], r"^query\[1\] is no text; got None\. Give a text\.$"),
        ("x", [None, "b"], r"^documents\[0\] is no text; got None\. Give a text\.$"),
        ("x", {"a": None}, r"^documents\['a'\] is no text; got None\. Give a text\.$"),
        ("x", "abc", r"^documents must be a list .*; got 'abc'\. Give \[text\] or \{id: text\}\.$"),
        ("x", None, r"^documents must be a list .*; got None\."),
        ("x", np.array([[1.0], [2.0]]), r"^documents\[0\] is no text; got array"),
        ("x", {}, r"^documents must be a list .*; got \{\}\."),
    ],
)  # fmt: skip
def test_a_search_of_what_is_no_text_names_it(model, query, documents, message):
    with pytest.raises(embedtrain.UserError, match=message) as caught:
        model.search(query, documents)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("top", [0, -1, None, 2.5])
def test_a_search_has_at_least_one_result(model, top):
    with pytest.raises(embedtrain.UserError, match=rf"^top must be a whole number .*; got {top}\."):
        model.search("x", ["a"], top=top)


def test_a_run_without_a_model_says_how_to_finish_it(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(embedtrain.UserError, match=r"has no model yet.*embedtrain\.resume\("):
        embedtrain.load(tmp_path)


def test_documents_of_an_index_go_to_a_gpu_once_and_not_into_a_pickle(model, monkeypatch):
    copied = []

    def resident(documents, device):
        copied.append(device)
        return torch.from_numpy(documents)

    monkeypatch.setattr("embedtrain.retrieval.search.resident", resident)
    index = model.index(TEXTS)
    hits = [model.search(query, index, top=2) for query in ("red cat", "dog", "dog")]
    assert hits == [model.search(query, TEXTS, top=2) for query in ("red cat", "dog", "dog")]
    assert copied.count(model.encoder.device) == 4, (
        "once for the index, once for each list of texts"
    )
    again = pickle.loads(pickle.dumps(index))
    assert (again.texts, vars(again)["_near"]) == (index.texts, {})
    assert model.search("dog", again, top=2) == hits[1]
