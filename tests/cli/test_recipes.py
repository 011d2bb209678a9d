import json

import yaml
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.resources import recipe_names, resource


def run(*arguments):
    return CliRunner().invoke(app, ["recipes", *arguments])


def test_a_pipe_gets_a_line_for_each_recipe():
    lines = run().stdout.splitlines()
    assert len(lines) == len(recipe_names()) > 30
    names, descriptions = zip(*(line.split("\t") for line in lines), strict=True)
    assert list(names) == recipe_names()
    for name, description in zip(names, descriptions, strict=True):
        content = yaml.safe_load((resource("recipes") / f"{name}.yaml").read_text())
        assert content["description"] == description


def test_show_prints_the_file_as_it_is():
    text = (resource("recipes") / "dense" / "info_nce.yaml").read_text()
    assert run("show", "dense/info_nce").stdout == text
    assert run("show", "dense/info_nce.yaml").stdout == text


def test_show_knows_what_was_meant():
    error = run("show", "dense/info_ncee").exception
    assert "Did you mean dense/info_nce?" in str(error)


def test_keys_is_a_schema_for_editors():
    schema = json.loads(run("keys").stdout)
    assert schema["$defs"]["TrainerConfig"]["properties"]["steps"]["description"]


def test_list_is_what_recipes_alone_does():
    assert run("list").stdout == run().stdout
