"""Scores of a model, from Python."""

import json
import sys

import pandas as pd
import pytest

import embedtrain
from embedtrain.evaluation.results.result import load_result
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks


@pytest.fixture(scope="module")
def task(beir):
    """The BEIR folder's content as a person would hold it."""
    entries = {
        name: [json.loads(line) for line in (beir / f"{name}.jsonl").read_text().splitlines()]
        for name in ("queries", "corpus")
    }
    return {
        "queries": {row["_id"]: row["text"] for row in entries["queries"]},
        "documents": pd.DataFrame(entries["corpus"]),
        "qrels": {f"q{number}": [f"d{number}"] for number in range(10)},
    }


def test_data_in_memory_and_the_folder_of_the_command_give_one_result(bert, beir, task, tmp_path):
    (command,) = evaluate_tasks(bert, Wish([str(beir)], efficiency=False))
    loaded = embedtrain.load(bert)
    for result in (embedtrain.evaluate(loaded, beir), embedtrain.evaluate(bert, **task)):
        assert result.metrics == command.metrics
        assert result.per_query == command.per_query
        assert result.model == command.model
    interval = command.metrics["ndcg_at_10"]
    assert interval.low <= interval.value <= interval.high
    file = tmp_path / "scores.json"
    compared = embedtrain.evaluate(loaded, beir, baseline=command, output=file)
    assert compared.comparison.metrics["ndcg_at_10"].difference == 0
    assert load_result(file) == compared


def test_a_kind_of_task_of_ones_own_is_imported_by_its_name(bert, tmp_path, monkeypatch):
    (tmp_path / "own_task.py").write_text(
        "from embedtrain.evaluation.tasks.base import Outcome, Task\n"
        "class Lengths(Task):\n"
        "    kind, needs = 'lengths', 'rows of text'\n"
        "    def __init__(self, files):\n"
        "        self.texts = {'1': 'a', '2': 'bbb'}\n"
        "        self.data = files.described('lengths', 2, 0)\n"
        "    @classmethod\n"
        "    def recognises(cls, files):\n"
        "        return True\n"
        "    def run(self, subject):\n"
        "        return Outcome({'length': {one: float(len(t)) for one, t in self.texts.items()}})\n"
    )
    data = tmp_path / "rows.jsonl"
    data.write_text('{"odd": 1}\n')
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    result = embedtrain.evaluate(bert, data, task="own_task:Lengths")
    assert result.metrics["length"].value == 2
    with pytest.raises(embedtrain.UserError, match="looks like no task"):
        embedtrain.evaluate(bert, data)  # it is asked by name only
    with pytest.raises(embedtrain.UserError, match=r"own_task:Task.* is no kind|own_task:Outcome"):
        embedtrain.evaluate(bert, data, task="own_task:Outcome")
    with pytest.raises(embedtrain.UserError, match=r"^--task is unknown; got 'lengths'"):
        embedtrain.evaluate(bert, data, task="lengths")


def test_a_paired_test_on_one_query_is_refused(bert):
    one = {"queries": ["red"], "documents": ["a red cat", "a dog"], "qrels": {0: [0]}}
    result = embedtrain.evaluate(bert, **one)
    assert len(result.per_query["ndcg_at_10"]) == 1
    with pytest.raises(embedtrain.UserError, match=r"^baseline needs two queries .*; got 1\."):
        embedtrain.evaluate(bert, **one, baseline=result)


@pytest.mark.parametrize("left_out", ["queries", "documents", "qrels", None])
def test_half_a_task_and_two_tasks_are_refused(bert, beir, task, left_out):
    given = {name: value for name, value in task.items() if name != left_out}
    with pytest.raises(embedtrain.UserError, match="takes either data, or queries, documents"):
        embedtrain.evaluate(bert, None if left_out else beir, **given)
