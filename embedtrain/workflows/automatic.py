"""Write into a recipe what ``trainer: auto`` chooses, so that its run leaves nothing open."""

import math
from collections.abc import Sequence
from typing import Any

from embedtrain.data.tokenized import TokenizedSource
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.text_model import TextModel
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.progress import console
from embedtrain.recipe.retrieval import Recipe
from embedtrain.training.automatic import (
    BOTH_DIRECTIONS,
    FEW_ROWS,
    TEMPERATURE,
    Facts,
    choose_trainer,
    count_measurements,
)
from embedtrain.training.settings import TrainerConfig
from embedtrain.workflows.prepare import Prepared, check_batch_size


def with_automatic(recipe: Recipe, model: TextModel, prepared: Prepared) -> Recipe:
    """Return the recipe with the values that ``trainer: auto`` stands for, and print them.

    Keys that the recipe says win, of the objective and the validation too.

    Raises:
        UserError: If there are too few rows.
    """
    if not recipe.trainer.auto:
        return recipe
    facts = facts_of(recipe, model, prepared)
    trainer = _chosen_trainer(recipe.trainer, facts)
    update: dict[str, object] = {"trainer": trainer, "objective": _chosen_objective(recipe)}
    validation = recipe.validation
    if validation is not None and "every_steps" not in validation.model_fields_set:
        steps = trainer.num_steps(facts.rows)
        times = count_measurements(facts, steps, trainer.batch_size)
        update["validation"] = validation.model_copy(
            update={"every_steps": math.ceil(steps / times)}
        )
    resolved = Recipe.model_validate(dict(recipe) | update)
    check_batch_size(prepared.sources, resolved.data.batch_sizes(trainer.batch_size))
    console.print(_describe(facts, resolved))
    return resolved


def facts_of(recipe: Recipe, model: TextModel, prepared: Prepared) -> Facts:
    """Return what the choice depends on."""
    sources: Sequence[TokenizedSource] = prepared.sources
    kind: Any = recipe.model.kind
    if isinstance(model.backbone, WordTable):
        kind = "static"
    task = prepared.validation
    return Facts(
        queries=sum(source.report.num_queries for source in sources),
        rows=sum(map(len, sources)),
        smallest=min(map(len, sources)),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        kind=kind,
        adapters=recipe.model.lora is not None,
        texts_measured=0 if task is None else len(task.queries) + len(task.documents),
        texts_per_row=2 + (recipe.data.num_negatives or 0),
        synthetic=recipe.trainer.auto == "synthetic",
    )


def _chosen_trainer(config: TrainerConfig, facts: Facts) -> TrainerConfig:
    given = {name: getattr(config, name) for name in config.model_fields_set - {"auto"}}
    whole = config.model_dump() | choose_trainer(facts, given, config.accumulate * config.num_ranks)
    return TrainerConfig.model_validate(whole | {"auto": False, "max_steps": None})


def _chosen_objective(recipe: Recipe) -> object:
    """Choose temperature and directions, where scores are cosines and nothing else decides them."""
    objective = recipe.objective
    if not isinstance(objective, InfoNCE) or not isinstance(recipe.model, DenseConfig):
        return objective
    chosen: dict[str, object] = {"temperature": TEMPERATURE}
    if recipe.frozen_documents is None and objective.negatives == "all":
        chosen["directions"] = BOTH_DIRECTIONS
    free = {key: value for key, value in chosen.items() if key not in objective.model_fields_set}
    return objective.model_copy(update=free)


def _describe(facts: Facts, recipe: Recipe) -> str:
    trainer, objective = recipe.trainer, recipe.objective
    parts = [
        f"{trainer.num_steps(facts.rows):,} steps of {trainer.batch_size}",
        f"learning rate {trainer.learning_rate:g}",
    ]
    if isinstance(objective, InfoNCE):
        both = "both directions" if len(objective.directions) > 1 else "one direction"
        parts += [f"temperature {objective.temperature:g}", both]
    if recipe.validation is not None:
        parts.append(f"validation every {recipe.validation.every_steps} steps")
    said = (
        f"trainer: auto takes {', '.join(parts)} for {facts.queries:,} queries and a {facts.kind} model of "
        f"{facts.parameters / 1e6:.1f} M parameters"
    )
    if facts.queries >= FEW_ROWS:
        return said
    return f"{said}. Of fewer than {FEW_ROWS} queries `embedtrain adapt` may make more"
