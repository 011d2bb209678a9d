"""`trainer: auto` in a recipe: resolved before the run begins, and what the recipe says stands."""

import json

import pytest
import yaml

from embedtrain.errors import UserError
from embedtrain.recipe.keys import check_keys
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows.check import check
from embedtrain.workflows.train import resume, train


@pytest.fixture(autouse=True)
def trusted_exports(monkeypatch):
    """Reloading each export in a fresh process takes long and is tested elsewhere."""
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)


@pytest.fixture
def written(tmp_path, bert, cache):
    """Write a recipe of 40 rows; ``content`` changes sections."""

    def write(**content):
        rows = tmp_path / "rows.jsonl"
        lines = [{"query": f"red cat {n}", "positive": f"blue dog {n}"} for n in range(40)]
        rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
        whole = {
            "description": "toy",
            "data": {"sources": [{"path": str(rows)}], "cache": str(cache)},
            "model": {"backbone": bert},
            "trainer": "auto",
        }
        path = tmp_path / "auto.yaml"
        path.write_text(yaml.safe_dump(whole | content))
        return path

    return write


def test_a_run_writes_out_what_was_chosen_and_keeps_it(written, tmp_path, capsys):
    path = written(validation={"fraction": 0.3})
    assert check_keys(path) == "Recipe"
    run = train(load_recipe(path), tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "trainer: auto takes 10 steps of 4, learning rate 2e-05, temperature 0.05, both" in said
    assert "`embedtrain adapt` may make more" in said
    recipe = load_recipe(run.recipe)
    assert recipe.trainer.auto is False
    assert (recipe.trainer.steps, recipe.trainer.batch_size) == (10, 4)
    assert recipe.trainer.warmup_ratio == 0.5
    assert recipe.objective.directions == ("query_to_document", "document_to_query")
    assert recipe.validation.every_steps == 3
    text = run.recipe.read_text()
    resume(run.path)
    assert run.recipe.read_text() == text
    assert "trainer: auto" not in capsys.readouterr().err


def test_keys_that_are_given_stand(written):
    path = written(
        trainer={"auto": True, "steps": 3, "learning_rate": 0.5},
        objective={"name": "info_nce", "temperature": 0.3},
        validation={"fraction": 0.3, "every_steps": 2},
    )
    found = check(load_recipe(path)).recipe
    assert (found.trainer.steps, found.trainer.learning_rate) == (3, 0.5)
    assert found.objective.temperature == 0.3
    assert len(found.objective.directions) == 2
    assert found.validation.every_steps == 2


def test_queries_that_a_program_wrote_are_learned_more_slowly(written):
    found = check(load_recipe(written(trainer={"auto": "synthetic"}))).recipe
    assert (found.trainer.steps, found.trainer.learning_rate) == (5, 1e-5)
    assert found.trainer.auto is False


def test_a_key_can_be_set_where_the_file_says_auto(written):
    recipe = load_recipe(written(), ["trainer.steps=5", "trainer.seed=3"])
    assert recipe.trainer.auto
    assert (recipe.trainer.steps, recipe.trainer.seed) == (5, 3)


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("automatic", "trainer must have keys of its own; got 'automatic'"),
        ({"auto": True, "steps": 1, "epochs": 1}, "give either steps or epochs"),
        ({"auto": False}, "give either steps or epochs"),
        ({"auto": True, "step": 1}, "Did you mean steps?"),
    ],
)
def test_mistakes_are_named(written, trainer, message):
    path = written(trainer=trainer)
    for read in (load_recipe, check_keys):
        with pytest.raises(UserError) as refused:
            read(path)
        assert message in str(refused.value)


def test_few_rows_stop_the_run_before_its_folder_is_made(written, tmp_path):
    recipe = load_recipe(written(), ["data.sources.0.limit=9"][:0])
    few = tmp_path / "few.jsonl"
    few.write_text('{"query": "a", "positive": "b"}\n' * 9)
    with pytest.raises(UserError, match="needs 16 rows; got 9"):
        train(load_recipe(recipe, data=few), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pretraining_has_no_table():
    content = load_recipe("smoke/pretrain_mlm").model_dump()
    content["trainer"] = {"auto": True}
    with pytest.raises(UserError, match="trainer: auto is for retrieval"):
        load_recipe(content)
