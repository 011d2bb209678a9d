"""The model card of a pre-trained encoder: everything in it comes from the run folder."""

import json
from string import Template

from embedtrain.objectives.own import name_of
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import dump_recipe
from embedtrain.recipe.run_folder import RunFolder
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
        data=_data(run, recipe),
        versions=", ".join(f"{k} {v}" for k, v in environment.get("versions", {}).items()),
        git_commit=environment.get("git_commit") or "none",
        recipe=dump_recipe(recipe).strip(),
    )


def _data(run: RunFolder, recipe: PretrainRecipe) -> str:
    reports = json.loads(run.data.read_text(encoding="utf-8"))
    rows = [
        f"| {source.path} | {report['num_documents']:,} | {report['num_spans']:,} "
        f"| {report['num_tokens']:,} | `{report['fingerprint'][:16]}` |"
        for source, report in zip(recipe.data.sources, reports, strict=True)
    ]
    head = ["| Source | Documents | Spans | Tokens | Fingerprint |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])
