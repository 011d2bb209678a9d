"""The model card of a pre-trained encoder: everything in it comes from the run folder."""

import json
from string import Template

from embedtrain.objectives.own import name_of
from embedtrain.recipe.changed_settings import dump_changed
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.cards.training_data import markdown_table, training_data
from embedtrain.resources import resource


def render_pretrain_card(run: RunFolder, recipe: PretrainRecipe) -> str:
    """Return the README.md of a pre-trained encoder."""
    template = resource("model_cards").joinpath("pretrain_template.md").read_text(encoding="utf-8")
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    return Template(template).substitute(
        description=recipe.description,
        objective=name_of(recipe.objective),
        backbone=recipe.model.backbone,
        start="random weights" if recipe.model.architecture else "its weights",
        pooling=recipe.model.pooling,
        head="with its masked-language head" if recipe.objective.keeps_head else "without a head",
        length=recipe.data.length,
        data=markdown_table(*training_data(run, recipe)),
        versions=", ".join(f"{k} {v}" for k, v in environment.get("versions", {}).items()),
        git_commit=environment.get("git_commit") or "none",
        recipe=dump_changed(recipe).strip(),
    )
