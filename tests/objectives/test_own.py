"""Objectives of the user's own, wherever an objective may stand."""

import sys

import pytest
import torch
import yaml
from objective_toys import random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives import OBJECTIVES, Objective
from embedtrain.objectives.own import check_output, name_of
from embedtrain.recipe.retrieval import dump_recipe, load_recipe
from embedtrain.training.sources import TrainingSource

MODULE = """
from typing import Literal
from embedtrain.objectives import AnyObjective, Objective
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import ObjectiveOutput

class Spread(Objective):
    weight: float = 1.0
    def __call__(self, outputs):
        return ObjectiveOutput(self.weight * outputs.document.var(), {})

class Named(Spread):
    name: Literal["spread"] = "spread"

class Sharper(InfoNCE):
    pass

class Number(Objective):
    def __call__(self, outputs):
        return 0.5

class Vector(Objective):
    def __call__(self, outputs):
        return ObjectiveOutput(outputs.document.sum(1), {})

class Guided(Objective):
    def __call__(self, outputs):
        return outputs.guide.query

class Lacking(Objective):
    weight: float = 1.0

class Twice(Objective):
    inner: AnyObjective
    def __call__(self, outputs):
        return ObjectiveOutput(2 * self.inner(outputs).loss, {})
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The module ``own_losses``, in the working folder."""
    (tmp_path / "own_losses.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    import own_losses

    yield own_losses
    sys.modules.pop("own_losses")


def recipe(objective, of_source=None):
    return {
        "description": "a test",
        "data": {"sources": [{"path": "pairs.jsonl", "objective": of_source}]},
        "model": {"backbone": "org/name"},
        "objective": objective,
        "trainer": {"steps": 10},
    }


def test_a_class_named_in_a_recipe_is_used_and_stored_under_that_name(own):
    loaded = load_recipe(recipe({"name": "own_losses:Spread", "weight": 3}))
    assert loaded.objective == own.Spread(weight=3)
    stored = yaml.safe_load(dump_recipe(loaded))
    assert stored["objective"] == {"name": "own_losses:Spread", "weight": 3.0}
    assert load_recipe(stored) == loaded


@pytest.mark.parametrize("kind", ["Spread", "Named", "Sharper"])
def test_an_instance_is_stored_so_that_it_is_found_again(own, kind):
    loaded = load_recipe(recipe(getattr(own, kind)()))
    stored = yaml.safe_load(dump_recipe(loaded))
    assert stored["objective"]["name"] == f"own_losses:{kind}" == name_of(loaded.objective)
    assert type(load_recipe(stored).objective) is getattr(own, kind)


def test_instances_of_the_package_keep_their_short_names():
    for name, kind in OBJECTIVES.items():
        if not any(field.is_required() for field in kind.model_fields.values()):
            assert name_of(kind()) == name


def test_own_objectives_stand_inside_others_and_others_inside_them(own):
    spread = {"name": "own_losses:Spread", "weight": 3.0}
    for holder in (
        {"name": "matryoshka", "dims": [2], "inner": spread},
        {"name": "sum", "objectives": [{"name": "info_nce"}, spread]},
        {"name": "own_losses:Twice", "inner": {"name": "sum", "objectives": [spread]}},
    ):
        loaded = load_recipe(recipe(holder))
        stored = yaml.safe_load(dump_recipe(loaded))
        assert load_recipe(stored) == loaded
        assert "own_losses:Spread" in str(stored["objective"])
    of_source = load_recipe(recipe({"name": "info_nce"}, of_source=spread))
    assert of_source.objectives == (own.Spread(weight=3),)
    outputs = random_outputs()
    twice = own.Twice(inner=own.Spread(weight=3))
    assert torch.equal(twice(outputs).loss, 6 * outputs.document.var())


def test_what_differs_from_the_defaults_is_written_with_the_name(own):
    source = TrainingSource(path="x", objective=own.Spread())
    assert source.model_dump(exclude_defaults=True) == {
        "path": "x",
        "objective": {"name": "own_losses:Spread"},
    }


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"name": "own_losses:Spread", "wieght": 1}, r"objective.wieght is an unknown key. Did you mean weight\?"),
        ({"name": "own_losses:Spread", "weight": "x"}, r"objective.weight is not usable .*got 'x'"),
        ({"name": "own_losses:Spraed"}, r"objective: own_losses:Spraed is not there"),
        ({"name": "own_gone.losses:Spread"}, r"objective: own_gone.losses:Spread needs own_gone, which is not installed"),
        ({"name": "json:dumps"}, r"json:dumps is no objective; .* subclass of embedtrain.objectives.Objective"),
        ({"name": "info_nec"}, r"objective names nothing known; got 'info_nec'. Did you mean info_nce\?"),
        (
            {"name": "matryoshka", "dims": [2], "inner": {"name": "own_losses:Spread", "wieght": 1}},
            r"objective.inner.wieght is an unknown key. Did you mean weight\?",
        ),
        (
            {"name": "sum", "objectives": [{"name": "own_losses:Twice", "inner": {"name": "info_nce", "temprature": 1}}]},
            r"objective.objectives.0.inner.temprature is an unknown key. Did you mean temperature\?",
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_one_reads_like_any_other(own, objective, message):
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(recipe(objective))
    assert str(caught.value).startswith("recipe: ")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("kind", ["Number", "Vector"])
@pytest.mark.parametrize("form", ["name", "instance", "inside"])
def test_one_that_returns_no_loss_is_refused_with_the_recipe(own, kind, form):
    name = {"name": f"own_losses:{kind}"}
    given = {
        "name": name,
        "instance": getattr(own, kind)(),
        "inside": {"name": "sum", "objectives": [{"name": "info_nce"}, name]},
    }[form]
    message = (
        rf"^recipe: objective.*: own_losses:{kind} must return the loss of a batch; got .*\. Ret"
    )
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(recipe(given))
    assert "\n" not in str(caught.value)


def test_one_that_cannot_be_tried_is_judged_in_training(own):
    before = torch.get_rng_state()
    guided = load_recipe(recipe(own.Guided())).objective
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(UserError, match=r"^own_losses:Guided must return the loss .*; got tensor"):
        check_output(guided, torch.zeros(3))
    output = own.Spread()(random_outputs())
    assert check_output(guided, output) is output


def test_one_without_call_and_a_class_in_place_of_an_instance_are_refused(own):
    message = (
        r"objective: own_losses:Lacking lacks what every objective has; got \['__call__'\]\. De"
    )
    with pytest.raises(UserError, match=message):
        load_recipe(recipe({"name": "own_losses:Lacking"}))
    with pytest.raises(UserError, match=r"objective: Spread is a class; got .*\. Give an instance"):
        load_recipe(recipe(own.Spread))


def test_a_class_of_the_wrong_kind_is_refused(own):
    pretraining = recipe({"name": "own_losses:Spread"}) | {
        "data": {"sources": [{"path": "texts.jsonl"}]},
        "model": {"kind": "masked_autoencoder", "backbone": "org/name"},
    }
    with pytest.raises(UserError, match=r"subclass of embedtrain.objectives.pretrain.PretrainObj"):
        load_recipe(pretraining)
    assert issubclass(own.Spread, Objective)
