"""Runs that are started from Python."""

import json
import shutil
import sys

import pytest
import yaml
from safetensors.torch import load_file
from torch import equal

import embedtrain
from embedtrain.cli.printing import print_report
from embedtrain.files import default_cache
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.callbacks import list_checkpoints

OWN = """
from embedtrain.objectives import Objective
from embedtrain.types import ObjectiveOutput

class Pull(Objective):
    weight: float = 1.0
    def __call__(self, outputs):
        positive = outputs.document[outputs.relevance.positives[:, 0]]
        return ObjectiveOutput(self.weight * (1 - (outputs.query * positive).sum(1)).mean(), {})
"""


def same_weights(one, other):
    first, second = (load_file(run.model / "model.safetensors") for run in (one, other))
    return all(equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("trusted_exports")
def test_rows_in_memory_train_what_the_same_rows_in_a_file_train(recipe, rows, pairs, tmp_path):
    memory = embedtrain.train(recipe, str(tmp_path / "memory"), data=(row for row in rows))
    file = embedtrain.train(recipe, tmp_path / "file", data=pairs)
    assert same_weights(memory, file)
    fingerprints = [json.loads(run.data.read_text())[0]["fingerprint"] for run in (memory, file)]
    assert fingerprints[0] == fingerprints[1]
    assert repr(memory) == f"RunFolder('{tmp_path}/memory')"


@pytest.mark.usefixtures("trusted_exports")
def test_a_run_goes_on_without_the_rows_it_was_given(recipe, rows, beir, tmp_path):
    corpus = [json.loads(line) for line in (beir / "corpus.jsonl").read_text().splitlines()]
    content = recipe | {
        "data": {"sources": [{"rows": rows, "weight": 1.0}, {"rows": rows[::2], "weight": 2.0}]},
        "evaluation": {
            "queries": ["red cat", "blue bird"],
            "documents": corpus,
            "qrels": {0: ["d1"], 1: ["d2"]},
        },
    }
    whole = embedtrain.train(content, tmp_path / "whole")
    shutil.rmtree(default_cache() / "given")
    shutil.copytree(whole.path, tmp_path / "stopped")
    stopped = type(whole)(tmp_path / "stopped")
    shutil.rmtree(stopped.model)
    stopped.evaluation.unlink()
    list_checkpoints(stopped.checkpoints)[-1].unlink()
    resumed = embedtrain.resume(stopped.path, {"trainer.chunk_tokens": 512})
    assert same_weights(whole, resumed)
    scores = [json.loads(run.evaluation.read_text())["after"] for run in (whole, resumed)]
    assert scores[0]["data"] == scores[1]["data"]
    assert scores[0]["data"]["name"] == "in_memory"
    card = (whole.model / "README.md").read_text()
    assert card.count("| given in memory | train |") == 2
    assert card.count("path: given in memory") == 3
    assert str(default_cache()) not in card


@pytest.mark.usefixtures("trusted_exports")
def test_an_objective_of_ones_own_trains_and_its_absence_is_named(
    recipe, rows, tmp_path, monkeypatch
):
    (tmp_path / "own_pull.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    import own_pull

    run = embedtrain.train(
        recipe | {"objective": own_pull.Pull(weight=2)}, tmp_path / "run", data=rows
    )
    assert load_recipe(run.recipe).objective == own_pull.Pull(weight=2)
    built_in = embedtrain.train(recipe, tmp_path / "other", data=rows)
    assert not same_weights(run, built_in)
    sys.path.remove(str(tmp_path))
    del sys.modules["own_pull"]
    with pytest.raises(embedtrain.UserError, match=r"own_pull:Pull needs own_pull, which is not"):
        embedtrain.resume(run.path)


def test_a_recipe_in_a_dict_needs_no_description(recipe, rows, tmp_path):
    del recipe["description"]
    assert embedtrain.load_recipe(recipe, data=rows).description == "From Python."
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe | {"data": {"sources": [{"path": "pairs.jsonl"}]}}))
    assert embedtrain.load_recipe(file, data=rows).description == "From Python."
    with pytest.raises(embedtrain.UserError, match="description is missing"):
        embedtrain.load_recipe(file)


@pytest.fixture
def no_model(monkeypatch):
    """A mistake is to show before anything is loaded."""

    def fail(*_, **__):
        raise AssertionError("a model is loaded")

    for module in ("train", "check"):
        monkeypatch.setattr(f"embedtrain.workflows.{module}.build_model", fail)
    monkeypatch.setattr("embedtrain.workflows.mine.load_encoder", fail)


@pytest.mark.usefixtures("no_model")
def test_mistakes_in_rows_are_named_before_a_model_is_loaded(recipe, rows, bert, tmp_path):
    bad = [rows[0], {"query": "red", "answr": "a cat"}]
    message = r"^data row 1 has no column for the positive; got \['query', 'answr'\]\."
    for work in (
        lambda: embedtrain.train(recipe, tmp_path / "run", data=bad),
        lambda: embedtrain.check(recipe, data=bad),
        lambda: embedtrain.mine(bert, bad, tmp_path / "mined"),
    ):
        with pytest.raises(embedtrain.UserError, match=message):
            work()
    source = {
        "rows": [{"text": "a", "other": None}],
        "columns": {"query": "text", "positive": "other"},
    }
    message = r"^data\.sources\.0\.rows row 0 has a query without positives; got 'a'\."
    with pytest.raises(embedtrain.UserError, match=message):
        embedtrain.check(recipe | {"data": {"sources": [source]}})
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_model")
def test_a_function_that_takes_no_split_is_refused_before_a_model_is_loaded(
    recipe, tmp_path, monkeypatch
):
    (tmp_path / "own_noarg.py").write_text("def noarg():\n    return []\nrows = []\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    message = r"^own_noarg:noarg does not take the split as its one argument; got '\(\)'\. Name a "
    with pytest.raises(embedtrain.UserError, match=message):
        embedtrain.check(recipe, data="own_noarg:noarg")
    with pytest.raises(embedtrain.UserError, match=r"^own_noarg:rows gives no rows; got \[\]\."):
        embedtrain.train(recipe, tmp_path / "run", data="own_noarg:rows")


def test_an_evaluation_on_one_query_is_refused_before_training(recipe, rows, tmp_path):
    task = {"queries": ["red"], "documents": ["a red cat", "a dog"], "qrels": {0: [0]}}
    message = r"^evaluation needs two queries or more: .*; got 1\. Give more queries"
    with pytest.raises(embedtrain.UserError, match=message):
        embedtrain.train(recipe | {"evaluation": task}, tmp_path / "run", data=rows)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_was_read_takes_overrides_and_data(recipe, rows):
    first = embedtrain.load_recipe(recipe, data=rows)
    second = embedtrain.load_recipe(first, ["trainer.steps=9"], data="pairs.jsonl")
    assert (first.trainer.steps, second.trainer.steps) == (4, 9)
    assert second.data.sources[0].path == "pairs.jsonl"
    assert second.model == first.model
    assert embedtrain.load_recipe(first) == first
    named = embedtrain.load_recipe("quickstart", {"trainer.seed": 5})
    assert named.trainer.seed == 5


def test_check_prints_what_code_it_imported(recipe, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_shop.py").write_text(
        "def rows(split):\n"
        "    for number in range(9):\n"
        "        yield {'query': f'red {number}', 'positive': f'cat {number}'}\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    print_report(embedtrain.check(recipe, data="own_shop:rows"))
    printed = capsys.readouterr().out
    assert f"# imports own_shop:rows from {tmp_path / 'own_shop.py'}\n" in printed


def test_check_and_mine_take_rows(recipe, rows, bert, tmp_path):
    report = embedtrain.check(recipe, data=rows)
    assert report.sources[0][1].num_rows == len(rows)
    settings = {"num_negatives": 1, "depth": 5, "shortfall": "random_fill"}
    mined = embedtrain.mine(bert, rows, tmp_path / "mined", settings)
    found = [json.loads(line) for line in mined.training.read_text().splitlines()]
    assert {row["query"] for row in found} <= {row["query"] for row in rows}
    with pytest.raises(embedtrain.UserError, match=r"depht is an unknown key\. Did you mean depth"):
        embedtrain.mine(bert, rows, tmp_path / "again", {"depht": 5})


@pytest.mark.usefixtures("trusted_exports")
def test_export_takes_texts_as_paths(bert, tmp_path):
    folder = embedtrain.export(bert, str(tmp_path / "shorter"), dim=8)
    assert embedtrain.load(folder).encode_queries(["red cat"]).shape == (1, 8)
