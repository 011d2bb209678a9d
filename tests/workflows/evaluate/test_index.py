"""`--index` in evaluate and search, for models of every kind."""

import json

import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.results.report import render_text
from embedtrain.evaluation.results.result import load_result
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.prepare import load_task
from embedtrain.workflows.search import Searcher

CASES = {
    "bert": ("exact", "hnsw:effort=64"),
    "late_interaction": ("exact", "fde:repetitions=4,bits=2"),
    "sparse_model": ("exact", "two_step:document_words=8,query_words=4"),
}


@pytest.mark.parametrize("kind", CASES)
def test_an_index_is_named_and_measured_in_the_result(request, beir, tmp_path, kind):
    model, (exact, other) = request.getfixturevalue(kind), CASES[kind]
    wish = Wish([str(beir)], efficiency=False)
    (plain,) = evaluate_tasks(model, wish)
    output = tmp_path / "a.json"
    (same,) = evaluate_tasks(model, Wish([str(beir)], efficiency=False, index=exact), output)
    assert plain.index is None
    assert same.per_query == plain.per_query
    assert same.index.recall == {"recall_at_10": 1.0, "recall_at_100": 1.0}
    assert same.index.latency is None
    (found,) = evaluate_tasks(model, Wish([str(beir)], index=other), output)
    assert found.model.settings["index"]["name"] == other.partition(":")[0]
    assert 0 < found.index.recall["recall_at_10"] <= 1
    assert found.index.latency.p50_seconds <= found.index.latency.p95_seconds
    assert found.index.bytes_per_document > 0
    assert (found.index.postings_per_query is not None) == (kind == "sparse_model")
    assert load_result(output) == found, "another index is measured anew in the same file"
    text = render_text(found)
    assert f"index {other.partition(':')[0]}" in text
    assert "Recall@10" in text


@pytest.mark.parametrize("kind", CASES)
def test_search_finds_what_evaluate_finds(request, beir, tmp_path, kind):
    model, (_, other) = request.getfixturevalue(kind), CASES[kind]
    evaluate_tasks(model, Wish([str(beir)], efficiency=False, index=other), tmp_path / "a.json")
    ranked = {}
    for line in (tmp_path / "a.trec").read_text().splitlines():
        query, _, document, _, score, _ = line.split()
        ranked.setdefault(query, []).append((document, float(score)))
    searcher, task = Searcher(model, str(beir), index=other), load_task(str(beir), "test")
    for query_id, text in list(zip(task.query_ids, task.queries, strict=True))[:5]:
        hits = searcher.search(text, 5)
        scores = dict(ranked.get(query_id, []))
        assert [hit.score for hit in hits] == pytest.approx(
            [scores[hit.document_id] for hit in hits], rel=1e-4
        )


def test_what_an_index_cannot_be_is_one_line(bert, beir, sts, sparse_model):
    with pytest.raises(UserError, match="--index names no index of dense models; got 'two_step'"):
        evaluate_tasks(bert, Wish([str(beir)], index="two_step"))
    with pytest.raises(UserError, match="--index is for documents of retrieval"):
        evaluate_tasks(bert, Wish([sts], index="hnsw"))
    with pytest.raises(UserError, match="--index is for models"):
        Searcher("bm25", str(beir), index="exact")
    for model, flags, message in (
        (bert, ["--index", "hnsw", "--quantize", "int8"], "and so does --quantize"),
        (sparse_model, ["--dim", "3"], "cuts numbers that are words here; got 3"),
        (sparse_model, ["--quantize", "binary"], "would leave no weight of a word"),
        (bert, ["--index", "hnsw", "--mteb", "local"], "does not go with"),
    ):
        words = ["evaluate", model, "--data", str(beir), "--no-efficiency", *flags]
        failed = CliRunner().invoke(app, words)
        assert isinstance(failed.exception, UserError), failed.output
        assert message in str(failed.exception)


def test_a_sparse_model_is_evaluated_with_its_cost_and_in_bytes(sparse_model, beir, tmp_path):
    runner = CliRunner()
    for name, words in (("plain", []), ("bytes", ["--quantize", "int8"])):
        output = tmp_path / f"{name}.json"
        done = runner.invoke(
            app, ["evaluate", sparse_model, "--data", str(beir), "--output", str(output), *words]
        )
        assert done.exit_code == 0, done.output
    plain, rounded = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("plain", "bytes"))
    assert rounded["ndcg_at_10"]["value"] == pytest.approx(plain["ndcg_at_10"]["value"], abs=0.02)
    sizes = [one["efficiency"]["index_bytes"] for one in (plain, rounded)]
    assert sizes[1] < 0.7 * sizes[0]
