"""The model card of a pre-trained encoder: everything in it comes from the run folder."""

from string import Template

from embedtrain.objectives.own import name_of
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.cards.markdown import inline
from embedtrain.release.cards.training_data import making
from embedtrain.resources import resource


def render_pretrain_card(run: RunFolder, recipe: PretrainRecipe) -> str:
    """Return the README.md of a pre-trained encoder."""
    template = resource("model_cards").joinpath("pretrain_template.md").read_text(encoding="utf-8")
    return Template(template).substitute(
        objective=name_of(recipe.objective),
        backbone=inline(recipe.model.backbone),
        start="random weights" if recipe.model.architecture else "its weights",
        pooling=recipe.model.pooling,
        head="with its masked-language head" if recipe.objective.keeps_head else "without a head",
        length=recipe.data.length,
        **making(run, recipe),
    )
