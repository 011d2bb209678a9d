"""Mistakes in recipes of pre-training, told before any work starts."""

import pytest

from embedtrain.errors import UserError
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import load_recipe, load_retrieval_recipe
from embedtrain.resources import resource
from embedtrain.workflows.train import train


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.batch_size=7"], "trainer.batch_size must be even"),
        (["data.spans=pack"], "needs several spans of a document"),
        (
            ["trainer.batch_size=1000"],
            r"trainer.batch_size needs 500 documents of two spans; .* has",
        ),
        (["data.length=3"], "data.length leaves 1 tokens of a text"),
        (["data.length=65"], "data.length is more than the 64 tokens"),
        (["objective.mask=1"], r"objective\.mask is an unknown key"),
        (
            ["objective.name=retromay"],
            r"names nothing known; got 'retromay'\. Did you mean retromae",
        ),
        (["model.poolin=cls"], r"model\.poolin is an unknown key\. Did you mean pooling\?"),
    ],
)
def test_mistakes_are_named(smoke, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(smoke("cot_mae", *overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_misspelt_kind_is_told_from_all_kinds(recipe):
    with pytest.raises(UserError, match=r"Did you mean masked_autoencoder\?"):
        load_recipe(recipe, ["model.kind=masked_autoencode"])


def test_pairs_are_refused_where_they_do_nothing(smoke):
    with pytest.raises(UserError, match=r"data\.pairs is of no use to the objective mlm"):
        smoke("mlm", "data.pairs=nearby")


def test_commands_that_search_refuse_a_recipe_of_pretraining():
    with pytest.raises(UserError, match="is a recipe of pre-training"):
        load_retrieval_recipe(resource("recipes") / "pretrain" / "retromae.yaml")


def test_every_objective_has_a_recipe():
    from embedtrain.objectives.pretrain import PRETRAIN_OBJECTIVES

    paths = [
        path
        for folder in ("pretrain", "llm")
        for path in (resource("recipes") / folder).glob("*.yaml")
    ]
    found = [recipe for recipe in map(load_recipe, paths) if isinstance(recipe, PretrainRecipe)]
    assert {recipe.objective.name for recipe in found} == set(PRETRAIN_OBJECTIVES)
