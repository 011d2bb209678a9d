"""Where candidates come from: exact and approximate search, BM25, runs."""

import json

import numpy as np
import pytest
from mining_toys import make_task
from token_toys import maxsim_in_loops, unit_tokens

from embedtrain.encoding.shards import Shard
from embedtrain.errors import UserError
from embedtrain.mining.bm25 import Bm25Index, Bm25Search, open_bm25
from embedtrain.mining.dense import DenseSearch, EncodedPairs, open_dense
from embedtrain.mining.late_interaction import EncodedTokens
from embedtrain.mining.runs import RunSearch, open_run
from embedtrain.mining.search import best_rows


@pytest.fixture
def encoded() -> EncodedPairs:
    generator = np.random.default_rng(0)
    return EncodedPairs(
        "key",
        generator.standard_normal((40, 8)).astype(np.float32),
        generator.standard_normal((500, 8)).astype(np.float32),
    )


def open_index(encoded, tmp_path, **settings):
    config = DenseSearch(**settings)
    return open_dense(config, "dense", encoded, 20, cache=tmp_path, seed=0, shard=Shard())


def test_exact_search_is_the_sorted_product_in_float64(encoded):
    rows = np.array([3, 7])
    product = encoded.queries[rows].astype(float) @ encoded.documents.astype(float).T
    expected = np.argsort(-product, axis=1, kind="stable")[:, :20]
    assert (encoded.search(rows, 20) == expected).all()


def test_effort_of_an_index_is_raised_until_its_recall_is_reached_and_written_down(
    encoded, tmp_path
):
    source = open_index(encoded, tmp_path, index="IVF64,Flat", min_recall=0.99)
    assert source.report["recall"] >= 0.99
    assert source.report["index_parameters"] in {"nprobe=32", "nprobe=64"}
    rows = np.arange(40)
    exact, found = encoded.search(rows, 20), source.search(rows, 20)
    shared = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(exact, found, strict=True)])
    assert shared == pytest.approx(source.report["recall"], abs=0.02)


def test_an_index_that_cannot_reach_its_recall_is_refused(encoded, tmp_path):
    with pytest.raises(UserError, match=r"finds only 0.*Choose a finer index"):
        open_index(encoded, tmp_path, index="PQ2x4", min_recall=0.99)


def test_bm25_finds_shared_words_best_first_and_nothing_else():
    texts = ["red cat", "cat cat dog", "blue bird", "the cat sleeps near the large house"]
    task, _ = make_task([[0.0] * 4] * 2, [[0]] * 2, texts)
    task.queries[:] = ["cat", "elephant"]
    found = open_bm25(Bm25Search(), "bm25", task).search(np.array([0, 1]), 3)
    assert found[0].tolist() == [1, 0, 3]
    assert (found[1] == -1).all()


def test_bm25_finds_other_forms_of_a_word_by_its_stem():
    pytest.importorskip("Stemmer", reason="PyStemmer is not installed")
    texts = ["the cat runs", "dogs running", "bird"]
    for stemmer, expected in ((None, [-1, -1]), ("english", [0, 1])):
        found = Bm25Index(Bm25Search(stemmer=stemmer), texts).search(["run"], 2)
        assert found.indices[0].tolist() == expected
    with pytest.raises(UserError, match=r"is of no such language; got 'klingon'"):
        Bm25Index(Bm25Search(stemmer="klingon"), texts)


def test_the_best_rows_of_equal_scores_are_the_first():
    scores = np.array([0.0, 2.0, 1.0, 1.0, 3.0, 1.0], dtype=np.float32)
    assert best_rows(scores, 3).tolist() == [4, 1, 2]
    assert best_rows(scores, 10).tolist() == [4, 1, 2, 3, 5]


def test_runs_are_read_from_trec_lines_and_json_alike(tmp_path):
    task, _ = make_task([[0.0] * 5] * 3, [[0]] * 3)
    (tmp_path / "run.trec").write_text("q0 Q0 d3 1 9.5 x\nq0 Q0 d1 2 9.5 x\nq2 Q0 d4 1 -1 x\n")
    content = {"q0": {"d3": 9.5, "d1": 9.5}, "q2": {"d4": -1}}
    (tmp_path / "run.json").write_text(json.dumps(content))
    for name in ("run.trec", "run.json"):
        source = open_run(RunSearch(path=str(tmp_path / name)), "run", task)
        found = source.search(np.array([0, 1, 2]), 3)
        assert found.tolist() == [[1, 3], [-1, -1], [4, -1]]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("q0 d1 1 0.5", "has 4 cells instead of 6"),
        ("q0 Q0 d1 1 high x", "must have a number as its score"),
        ("q0 Q0 d99 1 0.5 x", "names a document that the data lack; got 'd99'"),
        ("q9 Q0 d1 1 0.5 x", "lists none of the queries"),
    ],
)
def test_mistakes_in_a_run_are_named(tmp_path, line, problem):
    task, _ = make_task([[0.0] * 5], [[0]])
    (tmp_path / "run.trec").write_text(line + "\n")
    with pytest.raises(UserError, match=problem):
        open_run(RunSearch(path=str(tmp_path / "run.trec")), "run", task)


def test_token_vectors_are_searched_and_scored_by_maxsim():
    encoded = EncodedTokens("key", unit_tokens(6, 4, 0, length=3), unit_tokens(60, 4, 1))
    expected = maxsim_in_loops(encoded.queries, encoded.documents)
    rows = np.array([4, 1])
    order = np.argsort(-expected[rows], axis=1, kind="stable")[:, :5]
    assert (encoded.search(rows, 5) == order).all()
    chosen = np.array([[7, -1, 3], [59, 0, 0]])
    scores = encoded.score(rows, chosen)
    assert scores[0, 1] == -np.inf
    assert np.allclose(scores[0, [0, 2]], expected[4, [7, 3]])
    assert np.allclose(scores[1], expected[1, [59, 0, 0]])
