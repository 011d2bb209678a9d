"""What differs from the defaults: all of it, and nothing else."""

import pytest
import yaml
from places import ROOT

from embedtrain.recipe.changed_settings import dump_changed, filled_keys
from embedtrain.recipe.retrieval import Recipe, dump_recipe, load_recipe

RECIPES = [
    path
    for path in sorted((ROOT / "recipes").rglob("*.yaml"))
    if "stages" not in yaml.safe_load(path.read_text(encoding="utf-8"))
]


def test_there_are_recipes():
    assert len(RECIPES) > 20


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_differs_is_the_same_recipe_and_no_setting_of_it_can_be_left_out(path, tmp_path):
    recipe = load_recipe(path)
    short = dump_changed(recipe)
    again = tmp_path / "recipe.yaml"
    again.write_text(short, encoding="utf-8")
    assert load_recipe(again) == recipe
    assert dump_changed(load_recipe(again)) == short
    assert len(short.splitlines()) < len(dump_recipe(recipe).splitlines()) / 2
    content = yaml.safe_load(short)
    for section in ("trainer", "validation"):
        for key in content.get(section) or {}:
            less = {name: value for name, value in content[section].items() if name != key}
            said = f"{section}.{key} is what it is without being said"
            assert differs(content | {section: less}, recipe), said


def differs(content, recipe):
    """Whether settings are another recipe, or none."""
    try:
        return load_recipe(content) != recipe
    except ValueError:
        return True


def test_what_the_backbone_filled_is_left_out_and_what_was_asked_for_stays():
    model = {"backbone": "some/backbone", "query": {"length": 24}, "similarity": "dot"}
    content = {
        "description": "A toy.",
        "data": {"sources": [{"path": "pairs.jsonl"}]},
        "objective": {"name": "info_nce"},
        "trainer": {"steps": 1},
    }
    asked = Recipe.model_validate(content | {"model": model})
    full = {"query": {"length": 24, "prompt": ""}, "document": {"length": 9, "prompt": ""}}
    full |= {"pooling": "cls", "words": {"kept": 4}}
    resolved = Recipe.model_validate(content | {"model": model | full})
    filled = filled_keys(asked, resolved)
    assert filled_keys(asked, asked) == []
    assert {*filled} == {
        *("pooling", "words", "query.prompt", "document.prompt", "document.length"),
    }
    assert dump_changed(resolved, filled) == dump_changed(asked)
    assert dump_changed(asked, filled) == dump_changed(asked)
    assert "pooling: cls" in dump_changed(resolved)
