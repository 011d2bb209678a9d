"""The check of a recipe's keys says what the full validation says, sooner, and refuses nothing else."""

import sys

import pytest
import yaml
from forks import fork
from places import SCRIPTS

from embedtrain.errors import UserError
from embedtrain.recipe.keys import KEYS, check_keys, form_of, load_keys
from embedtrain.recipe.reading import read_file
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.resources import resource
from embedtrain.workflows.pipeline import load_pipeline

RECIPE = {
    "description": "a test",
    "data": {"sources": [{"path": "pairs.jsonl", "columns": {"query": "q"}}]},
    "model": {"backbone": "org/name", "query": {"length": 32}},
    "objective": {
        "name": "matryoshka",
        "dims": [64, 32],
        "inner": {"name": "sum", "objectives": [{"name": "info_nce"}], "weights": [1.0]},
    },
    "trainer": {"steps": 10},
}
PRETRAIN = {
    "description": "a test",
    "data": {"sources": [{"path": "texts.txt"}]},
    "model": {"kind": "masked_autoencoder", "backbone": "org/name"},
    "objective": {"name": "retromae"},
    "trainer": {"epochs": 1},
}
MISTAKES = [
    {"modle": {}},
    {"model": None},
    {"model": 5},
    {"model.backbon": "x"},
    {"model.kind": "dens"},
    {"model.kind": "late_interaction", "model.pooling": "mean"},
    {"model.query.lenght": 3},
    {"model.query": [1, 2]},
    {"model.query.length": "long"},
    {"model.query.length": 0},
    {"model.pooling": "median"},
    {"model.instructions": {"a": {"query": {"promt": "x"}}}},
    {"data.sources": []},
    {"data.sources": "pairs.jsonl"},
    {"data.sources": [{"pth": "x"}]},
    {"data.sources": [{"path": "x", "columns": {"qery": "q"}}]},
    {"data.sources": [{"path": "x", "columns": {"positive": [1]}}]},
    {"data.sources": [{"path": "x", "score_range": [0]}]},
    {"data.sources": [{"path": "x", "objective": {"name": "info_nce", "temp": 1}}]},
    {"objective": "info_nce"},
    {"objective": {"temperature": 0.1}},
    {"objective": {"name": "infonce"}},
    {"objective": {"name": 3}},
    {"objective.dims": [64, "x"]},
    {"objective.inner.weights": ["a"]},
    {"objective.inner.objectives": [{"name": "info_nce"}, {"name": "tripletz"}]},
    {"objective.inner.objectives": [{"name": "info_nce", "temprature": 0.1}]},
    {"trainer": {}, "trainer.stepz": 3},
    {"trainer.steps": "ten"},
    {"trainer.steps": 1.5},
    {"trainer.steps": -1},
    {"trainer.batch_size": 1},
    {"trainer.warmup_ratio": 1.0},
    {"trainer.precision": "fp16"},
    {"trainer.chunk_tokens": "many"},
    {"trainer.rematerialize": "perhaps"},
    {"trainer.loggers": ["wandbb"]},
    {"trainer.compile": 3},
    {"validation.every_steps": 0},
    {"evaluation": {"path": 3}},
    {"guide": {}},
    {"objective": {"name": "nopkg.mod:X"}},
    {"objective.inner.objectives": [{"name": "info_nce"}, {"name": "nopkg:X"}]},
    {"data.sources": [{"path": "x", "objective": {"name": "nopkg.mod:X"}}]},
    {"trainer.epochs": 1},
    {"trainer.steps": None},
    {"trainer.accumulate": 3},
    {"validation": {}},
    {"evaluation": {"path": "a", "fraction": 0.1}},
    {"evaluation.fraction": 0.9},
    {"trainer.patience": 2},
    {"validation": {"path": "a", "split": "x"}, "evaluation": {"path": "a", "split": "x"}},
]
PRETRAIN_MISTAKES = [
    {"model.kind": "masked_autoencode"},
    {"objective.name": "retromea"},
    {"objective.ratio": 3},
    {"data.length": "x"},
    {"validation.num_text": 3},
    {"trainer.steps": 3},
]


def changed(changes):
    return [
        f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in changes.items()
    ]


def said(check, path, overrides):
    with pytest.raises(UserError) as caught:
        check(path, overrides)
    return str(caught.value)


CASES = [(RECIPE, changes) for changes in MISTAKES]
CASES += [(PRETRAIN, changes) for changes in PRETRAIN_MISTAKES]


@pytest.mark.parametrize(("recipe", "changes"), CASES, ids=[str(changes) for _, changes in CASES])
def test_both_checks_call_a_mistake_the_same(tmp_path, recipe, changes):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    overrides = changed(changes)
    assert said(check_keys, path, overrides) == said(load_recipe, path, overrides)


def test_the_line_of_a_mistake_in_the_file_is_the_same(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE, sort_keys=False).replace("length:", "lenght:"))
    message = said(check_keys, path, ())
    assert message == said(load_recipe, path, ())
    assert message.endswith(
        "recipe.yaml:10: model.query.lenght is an unknown key. Did you mean length?"
    )


def test_a_stage_is_checked_like_a_recipe_and_a_pipeline_like_its_class(tmp_path):
    path = tmp_path / "stages.yaml"
    stage = {"name": "first", "train": {k: v for k, v in RECIPE.items() if k != "description"}}
    path.write_text(yaml.safe_dump({"description": "two", "stages": [stage]}, sort_keys=False))
    assert check_keys(path) == "Pipeline"
    message = said(check_keys, path, ["first.trainer.stepz=3"])
    assert "stages.0.train.trainer.stepz is an unknown key. Did you mean steps?" in message
    override = ["second.steps=3"]
    assert said(check_keys, path, override) == said(load_pipeline, path, override)
    path.write_text("description: one\nstages:\n- name: first\n  trin: {}\n")
    message = said(check_keys, path, ())
    assert message == said(load_pipeline, path, ())
    assert ":4: stages.0.trin is an unknown key. Did you mean train?" in message


@pytest.mark.parametrize("recipe", [RECIPE, PRETRAIN], ids=["retrieval", "pretrain"])
@pytest.mark.parametrize(
    "value",
    [
        "trainer.learning_rate=2e-5",
        "trainer.seed='7'",
        "trainer.batch_size=8.0",
        "trainer.compile=no",
    ],
)
def test_what_the_full_validation_reads_generously_is_no_mistake(tmp_path, recipe, value):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert check_keys(path, [value]) == type(load_recipe(path, [value])).__name__


@pytest.mark.parametrize("place", ["objective", "objective.inner", "data.sources.0.objective"])
def test_a_class_of_the_users_own_is_left_to_the_full_validation(tmp_path, place, monkeypatch):
    path = tmp_path / "recipe.yaml"
    (tmp_path / "my_package.py").write_text("raise RuntimeError('nothing is imported')")
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(yaml.safe_dump(RECIPE))
    *parents, last = place.split(".")
    section = content
    for parent in parents:
        section = section[int(parent) if parent.isdigit() else parent]
    section[last] = {"name": "my_package.my_module:Mine", "strength": 3}
    path.write_text(yaml.safe_dump(content))
    assert check_keys(path) == "Recipe"
    with pytest.raises(UserError, match="Did you mean steps"):  # but the rest is still looked at
        check_keys(path, ["trainer.stepz=3"])


def test_every_recipe_of_the_package_passes():
    found = sorted(resource("recipes").rglob("*.yaml"))
    assert {check_keys(path) for path in found} == {"Recipe", "PretrainRecipe", "Pipeline"}
    assert all(check_keys(path) == form_of(read_file(path)[0]) for path in found)


def test_the_file_of_keys_is_what_the_classes_say_now():
    def render():
        sys.path.insert(0, str(SCRIPTS))
        from make_recipe_keys import render_keys

        sys.stdout.write(render_keys())

    made = fork(render)
    assert made.stdout == KEYS.read_text(encoding="utf-8"), made.stderr or (
        "run `python scripts/make_recipe_keys.py`"
    )
    assert "Optimizer steps." in load_keys()["TrainerConfig"]["properties"]["steps"]["description"]
