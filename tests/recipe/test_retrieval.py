import pytest
import yaml
from places import ROOT

from embedtrain.errors import UserError
from embedtrain.recipe.keys import form_of
from embedtrain.recipe.reading import read_file
from embedtrain.recipe.retrieval import _read, dump_recipe, load_recipe
from embedtrain.resources import resource
from embedtrain.workflows.pipeline import load_pipeline

TEXT = """\
description: a test
data:
  sources:
    - {path: pairs.jsonl}
model:
  backbone: org/name
objective:
  name: info_nce
  temperature: 0.02
trainer:
  steps: 10
"""


def load(tmp_path, text=TEXT, *overrides):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path, overrides)


def test_a_recipe_loads_and_its_resolved_form_loads_to_the_same(tmp_path):
    recipe = load(tmp_path)
    assert recipe.objective.temperature == 0.02
    assert load(tmp_path, dump_recipe(recipe)) == recipe


def test_overrides_are_yaml_values(tmp_path):
    recipe = load(
        tmp_path,
        TEXT,
        "trainer.seed=7",
        "data.sources=[{path: x.jsonl}]",
        "trainer.learning_rate=2e-5",
    )
    assert recipe.trainer.seed == 7
    assert recipe.data.sources[0].path == "x.jsonl"
    assert recipe.trainer.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps: 10", "stepz: 10"), r"recipe.yaml:11: trainer.stepz is an unknown key. Did you mean steps\?$"),
        (("temperature: 0.02", "temprature: 1"), r":9: objective.temprature .* Did you mean temperature\?"),
        (("path: pairs", "pth: pairs"), r":4: data.sources.0.* is (missing|an unknown key)"),
        (("model:", "modle:"), r"(model is missing|Did you mean model\?)"),
        (("steps: 10", "steps: ten"), r"trainer.steps is not usable .*got 'ten'"),
        (("steps: 10", "steps: -1"), r"trainer.steps is not usable .*got -1"),
        (("name: info_nce", "name: infonce"), r"names nothing known; got 'infonce'. Did you mean info_nce\?"),
        (("  steps: 10", "  seed: 1"), r"give either steps or epochs"),
        (("description: a test", "description: [a"), r"is not valid YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_place_value_and_cure(tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, TEXT.replace(*change))
    assert "\n" not in str(caught.value)


def test_a_mistake_in_an_override_names_the_override(tmp_path):
    with pytest.raises(UserError, match=r"override trainer.sed.* Did you mean seed\?"):
        load(tmp_path, TEXT, "trainer.sed=1")
    with pytest.raises(
        UserError, match=r"description is not usable .*; got True\. Put the word in quo"
    ):
        load(tmp_path, TEXT, "description=yes")
    with pytest.raises(UserError, match="is not key=value"):
        load(tmp_path, TEXT, "trainer.seed")


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="is not a recipe"):
        load(tmp_path, "- 1\n")


def test_a_dict_is_a_recipe_and_its_mistakes_have_no_line(tmp_path):
    content = yaml.safe_load(TEXT)
    assert load_recipe(content) == load(tmp_path)
    assert load_recipe(content, {"trainer.seed": 7}) == load_recipe(content, ["trainer.seed=7"])
    assert content == yaml.safe_load(TEXT), "what the user gave is left as it was"
    content["trainer"] = {"stepz": 10}
    with pytest.raises(UserError, match=r"^recipe: trainer.stepz is an unknown key\. Did you mean"):
        load_recipe(content)
    with pytest.raises(
        UserError, match=r"^override trainer.sed: trainer.sed .* Did you mean seed\?"
    ):
        load_recipe(yaml.safe_load(TEXT), {"trainer.sed": 1})


def test_what_is_no_recipe_at_all_is_refused():
    for wrong in (7, None, ["data"]):  # the function around it has types, which the tests enforce
        with pytest.raises(UserError, match=rf"^recipe is none; got '{type(wrong).__name__}'\."):
            _read(wrong)


def test_a_name_stands_for_a_recipe_of_the_package_unless_a_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("smoke/pretrain_mlm") == load_recipe(
        resource("recipes") / "smoke" / "pretrain_mlm.yaml"
    )
    (tmp_path / "quickstart").write_text(TEXT)
    assert load_recipe("quickstart").description == "a test"


def test_a_mistake_in_an_objective_of_ones_own_has_its_line(tmp_path):
    text = TEXT.replace("name: info_nce", "name: absent_losses:Mine")
    expected = (
        r"recipe.yaml:7: objective: absent_losses:Mine needs absent_losses, which is not inst"
    )
    with pytest.raises(UserError, match=expected):
        load(tmp_path, text)


def test_the_reported_split_cannot_choose_the_checkpoint(tmp_path):
    extra = "validation: {path: a, split: test}\nevaluation: {path: a, split: test}\n"
    with pytest.raises(UserError, match="chosen, not measured"):
        load(tmp_path, TEXT + extra)


def test_every_recipe_that_comes_with_the_package_is_valid():
    found = sorted(resource("recipes").rglob("*.yaml"))
    assert found
    for path in found:
        assert "embedtrain train" in path.read_text(), f"{path} shows no command"
        if form_of(read_file(path)[0]) == "Pipeline":
            assert load_pipeline(path).description
            continue
        recipe = load_recipe(path)
        assert recipe.description
        assert yaml.safe_load(dump_recipe(recipe))


def test_every_objective_has_a_test_and_a_recipe():

    from embedtrain.objectives import OBJECTIVES

    used = set()
    for path in resource("recipes").rglob("*.yaml"):
        if form_of(read_file(path)[0]) == "Pipeline":
            continue
        inner = [load_recipe(path).objective.model_dump()]
        while inner:  # sums and others hold objectives themselves
            objective = inner.pop()
            used.add(objective["name"])
            inner += [objective["inner"]] if "inner" in objective else []
            inner += objective.get("objectives", [])
    for name, objective in OBJECTIVES.items():
        module = objective.__module__.rsplit(".", 1)[-1]
        assert (ROOT / "tests" / "objectives" / f"test_{module}.py").is_file(), name
        assert name in used, name
