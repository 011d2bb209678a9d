"""The words of --index, and how much of the exact result an index finds."""

import numpy as np
import pytest
from posting_toys import random_sparse
from token_toys import noisy_queries, topical_tokens

from embedtrain.errors import UserError
from embedtrain.retrieval import indexes
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.dense.indexes import FaissIndex
from embedtrain.retrieval.indexes import build, open_index, read_index, recall_of, rows_of


def dense(texts, seed):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(texts, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sides(kind):
    if kind == "dense":
        return dense(30, 1), dense(400, 0)
    if kind == "sparse":
        return random_sparse(30, 60, 1), random_sparse(400, 60, 0)
    documents = topical_tokens(80, 16, 0, length=12)
    return noisy_queries(documents, 20, 6, noise=0.1, seed=1)[0], documents


def test_words_become_settings():
    settings = read_index("two_step:query_words=20,num_candidates=200", "sparse")
    assert settings.model_dump() == {
        "name": "two_step", "document_words": 64, "query_words": 20, "num_candidates": 200,
    }  # fmt: skip
    assert read_index("hnsw", "dense").effort == 128
    faiss = read_index("faiss:factory=IVF4,Flat,parameters=nprobe=2,seed=3", "dense")
    assert (faiss.factory, faiss.parameters, faiss.seed) == ("IVF4,Flat", "nprobe=2", 3)
    assert read_index("fde:fill_empty=false", "late_interaction").fill_empty is False


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ("fde", "dense", "names no index of dense models; got 'fde'. Use one of exact, int8, ternary, binary"),
        ("ivf", "sparse", "names no index of sparse models; got 'ivf'. Use one of exact, uint8"),
        ("", "late_interaction", "names no index of late-interaction models"),
        ("hnsw:efort=3", "dense", r"cannot have this efort \(Extra inputs"),
        ("hnsw:effort=0", "dense", r"cannot have this effort \(Input should be greater than 0\)"),
        ("hnsw:64", "dense", "has a setting without a name; got '64'"),
        ("faiss", "dense", r"cannot have this factory \(Field required\)"),
    ],
)  # fmt: skip
def test_words_that_mean_nothing_are_refused_in_one_line(words, kind, message):
    with pytest.raises(UserError, match=message) as caught:
        read_index(words, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "words", "least"),
    [
        ("dense", "exact", 1.0),
        ("dense", "int8", 0.95),
        ("dense", "binary:rescore=20", 0.3),
        ("dense", "hnsw", 0.95),
        ("dense", "ivf:probes=4", 0.6),
        ("dense", "faiss:factory=SQ8", 0.95),
        ("late_interaction", "exact", 1.0),
        ("late_interaction", "tokens", 0.9),
        ("late_interaction", "binary", 0.5),
        ("sparse", "exact", 1.0),
        ("sparse", "uint8", 0.95),
        ("sparse", "two_step:document_words=6,query_words=6", 0.9),
    ],
)
def test_each_index_finds_its_share_in_fewer_or_as_many_bytes(kind, words, least):
    queries, documents = sides(kind)
    built = build(documents, read_index(words, kind))
    assert built.seconds >= 0
    assert built.index.num_bytes > 0
    recall = recall_of(built.index, queries, documents, (1, 10))
    assert set(recall) == {1, 10}
    assert least <= recall[10] <= 1
    if words == "exact":
        assert recall == {1: 1.0, 10: 1.0}


def test_little_effort_finds_little():
    queries, documents = dense(30, 1), dense(400, 0)
    few, many = (
        recall_of(build(documents, read_index(f"ivf:clusters=10,probes={n}", "dense")).index, queries, documents, (10,))
        for n in (1, 10)
    )  # fmt: skip
    assert few[10] < 0.6
    assert many[10] == 1.0


class Fixed:
    """Finds what it is told to."""

    num_bytes = 0

    def __init__(self, rows):
        self.rows = np.array(rows)

    def search(self, queries, num_results):
        del queries
        found = self.rows[:, :num_results]
        return SearchResult(found, np.where(found < 0, -np.inf, 1).astype(np.float32))


def test_ties_cost_nothing_and_short_results_are_judged_by_what_exists():
    documents = np.array([[3.0], [2.0], [2.0], [1.0]], np.float32)
    queries = np.array([[1.0]], np.float32)
    assert recall_of(Fixed([[0, 2]]), queries, documents, (2,)) == {2: 1.0}
    assert recall_of(Fixed([[0, 3]]), queries, documents, (2,)) == {2: 0.5}
    assert recall_of(Fixed([[3, 0]]), queries, documents, (1, 2)) == {1: 0.0, 2: 0.5}
    assert recall_of(Fixed([[0, -1]]), queries, documents, (2,)) == {2: 0.5}
    from posting_toys import sparse

    words = sparse({1: 1.0}, {2: 1.0})
    asked = sparse({1: 1.0}, {})
    assert recall_of(Fixed([[0, -1], [-1, -1]]), asked, words, (2,)) == {2: 1.0}


def test_an_index_of_faiss_is_saved_with_its_parameters(tmp_path):
    documents = dense(400, 0)
    index = build(documents, read_index("ivf:clusters=10,probes=2", "dense")).index
    index.save(tmp_path / "index")
    loaded = FaissIndex.load(tmp_path / "index")
    first, again = (one.search(dense(9, 1), 5) for one in (index, loaded))
    np.testing.assert_array_equal(first.indices, again.indices)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("dense", "ivf:clusters=10,probes=2"),
        ("late_interaction", "binary"),
        ("sparse", "uint8"),
        ("sparse", "two_step:query_words=1,num_candidates=5"),
    ],
)
def test_an_index_is_built_once_for_its_settings(monkeypatch, tmp_path, kind, words):
    queries, documents = sides(kind)
    settings = read_index(words, kind)
    first = open_index(documents, settings, tmp_path).search(queries, 5)
    other = open_index(documents, read_index("exact", kind), tmp_path).search(queries, 5)
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == [settings.name]
    assert not np.array_equal(first.scores, other.scores)
    monkeypatch.setattr(indexes, "build", None)
    again = open_index(documents, settings, tmp_path).search(queries, 5)
    np.testing.assert_array_equal(again.indices, first.indices)
    np.testing.assert_array_equal(again.scores, first.scores)


def test_what_costs_nothing_to_build_is_not_kept(tmp_path):
    queries, documents = sides("dense")
    open_index(documents, read_index("int8", "dense"), tmp_path).search(queries, 5)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_any_kind():
    for kind in ("dense", "late_interaction", "sparse"):
        queries, _ = sides(kind)
        assert len(rows_of(queries, np.array([3, 1]))) == 2


def test_recall_at_a_depth_is_that_of_a_search_for_so_many():
    documents = np.array([[3.0], [2.0], [1.0]], np.float32)

    class Deeper(Fixed):
        """Finds the best only where more are wanted."""

        def search(self, queries, num_results):
            rows = np.array(self.rows if num_results > 1 else [[2]])
            return Fixed(rows).search(queries, num_results)

    found = recall_of(Deeper([[0, 1]]), np.array([[1.0]], np.float32), documents, (1, 2))
    assert found == {1: 0.0, 2: 1.0}
