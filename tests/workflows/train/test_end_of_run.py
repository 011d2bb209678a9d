"""What a run says at its end: what changed, a query of the data at hand, commands that fit them."""

import json
import shlex

import numpy as np
import pytest

from embedtrain.cli.printing import print_run
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding import texts
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.recipe.run_files import read_summary
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.workflows.before_after import choose_example, first_results
from embedtrain.workflows.prepare import open_data
from embedtrain.workflows.search import Searcher
from embedtrain.workflows.train import train


@pytest.fixture(autouse=True)
def trusted_exports(monkeypatch):
    """Reloading each export in a fresh process takes long and is tested elsewhere."""
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def commands(printed: str) -> list[list[str]]:
    return [shlex.split(line) for line in printed.splitlines() if line.startswith("  embedtrain ")]


def advised(printed: str) -> str:
    """Return the section that the run proposes."""
    return printed.partition("add to the recipe: evaluation: ")[2].strip()


TASK = RetrievalTask(
    name="toy",
    query_ids=["a", "b", "c"],
    queries=["query a", "query b", "query c"],
    document_ids=["1", "2", "3", "4"],
    documents=["one", "two", "three", "four"],
    qrels={"a": {"1": 1}, "b": {"2": 1, "3": 0}, "c": {"3": 1}},
    fingerprint="x",
)


def test_the_example_gained_most_among_those_whose_first_result_became_right():
    before = {"a": ["2", "3", "4"], "b": ["3", "1", "4"], "c": ["3", "1", "2"]}
    after = {"a": ["1", "2", "3"], "b": ["2", "3", "1"], "c": ["3", "2", "1"]}
    chosen = choose_example(TASK, before, after, {"a": 0.5, "b": 0.9, "c": 1.0})
    assert chosen["query"] == "query b"
    assert [hit["text"] for hit in chosen["before"]] == ["three", "one", "four"]
    assert [hit["relevant"] for hit in chosen["before"]] == [False] * 3
    assert [hit["relevant"] for hit in chosen["after"]] == [True, False, False]
    assert choose_example(TASK, before, before, dict.fromkeys("abc", 1.0)) is None
    assert choose_example(TASK, {}, after, dict.fromkeys("abc", 1.0)) is None


def test_first_results_are_three_ids_of_each_query():
    found = SearchResult(np.array([[0, 1, 2, 3], [3, 2, -1, -1]]), np.ones((2, 4), np.float32))
    assert first_results(TASK, found) == {"a": ["1", "2", "3"], "b": ["4", "3"]}


def test_a_measured_run_ends_with_a_small_table_and_commands_that_fit_its_data(
    recipe, beir, tmp_path, capsys, wide, monkeypatch
):
    run = train(load_recipe(recipe, [f"evaluation={{path: {beir}}}"]), tmp_path / "my run")
    summary = read_summary(run)
    assert list(summary["seconds"]) == ["data", "before", "training", "after", "export"]
    assert min(summary["seconds"].values()) >= 0
    result = json.loads(run.evaluation.read_text())
    before, after = (result[when]["ndcg_at_10"]["value"] for when in ("before", "after"))
    capsys.readouterr()
    print_run(run.path)
    printed = capsys.readouterr().out
    row = next(line.split() for line in printed.splitlines() if "nDCG@10" in line)
    assert row[1:4] == [f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"]
    assert "10 queries among 30 documents" in printed
    assert "seconds: data " in printed
    search, report, export = commands(printed)
    lines = (beir / "queries.jsonl").read_text().splitlines()
    queries = [json.loads(line)["text"] for line in lines]
    assert search[:3] == ["embedtrain", "search", f"{run.path}/model"]
    assert search[3] in queries
    assert (report[1:3], export[1:3]) == (["report", str(run.path)], ["export", str(run.path)])
    # what was encoded after training is not encoded again to be searched
    sides = []
    encode = texts.encode_blocks

    def watched(model, batch, side, **settings):
        sides.append(side)
        return encode(model, batch, side, **settings)

    monkeypatch.setattr(texts, "encode_blocks", watched)
    assert len(Searcher(str(run.model)).search(search[3], 3)) == 3
    assert sides == ["query"]


def test_the_example_is_printed_with_its_results_before_and_after(
    recipe, beir, tmp_path, capsys, wide
):
    run = train(load_recipe(recipe, [f"evaluation={{path: {beir}}}"]), tmp_path / "run")
    shown = {"id": "d1", "text": "a [b] text\nof two lines", "relevant": True}
    summary = read_summary(run) | {
        "example": {"query": "how?", "before": [shown | {"relevant": False}], "after": [shown] * 2}
    }
    run.summary.write_text(json.dumps(summary))
    print_run(run.path)
    printed = capsys.readouterr().out
    assert "For example: how?" in printed
    assert "before 1  a [b] text of two lines" in printed
    assert "after  1* a [b] text of two lines\n       2* a [b]" in printed
    assert commands(printed)[0][3] == "how?"


def test_a_run_that_measures_nothing_says_less_and_how_to_measure(
    recipe, pairs, tmp_path, capsys, wide, beir, write_jsonl
):
    rows = [{"query": f"red cat {n}", "positive": f"blue dog {n}"} for n in range(80)]
    eighty = f"data.sources=[{{path: {write_jsonl(rows)}}}]"
    run = train(load_recipe(recipe, ["trainer.steps=2", eighty]), tmp_path / "run")
    print_run(run.path)
    printed = capsys.readouterr().out
    assert "nDCG" not in printed
    assert "For example" not in printed
    assert [command[1] for command in commands(printed)] == ["report", "export", "check"]
    opened = open_data(load_recipe(recipe, [eighty, f"evaluation={advised(printed)}"]))
    assert len(opened.evaluation.queries) >= 10
    few = tmp_path / "few.jsonl"
    few.write_text("".join(pairs.read_text().splitlines(keepends=True)[:12]))
    run = train(
        load_recipe(recipe, ["trainer.steps=2", f"data.sources=[{{path: {few}}}]"]),
        tmp_path / "few",
    )
    capsys.readouterr()
    print_run(run.path)
    assert advised(capsys.readouterr().out) == "{path: a BEIR folder of judged queries}"
    source = f"data.sources=[{{path: {beir}, split: dev}}]"
    run = train(load_recipe(recipe, ["trainer.steps=2", source]), tmp_path / "beir")
    capsys.readouterr()
    print_run(run.path)
    assert commands(capsys.readouterr().out)[0][-4:] == ["--data", str(beir), "--split", "dev"]
    run.summary.unlink()  # as runs of earlier versions have none
    print_run(run.path)
    assert len(commands(capsys.readouterr().out)) == 3
