"""The recipe: one YAML file that says what a training run is.

Every section's fields are declared by its owner; this file composes them, reads YAML and overrides, and
turns mistakes into one line that names the place, the value and the cure.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    Discriminator,
    Tag,
    ValidationError,
    model_validator,
)

from embedtrain.data.given import copy_given, copy_sections, keep_given, keep_rows
from embedtrain.errors import UserError
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.late_interaction.encoder import LateInteractionConfig
from embedtrain.objectives import AnyObjective, Objective
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.recipe.mistakes import PRETRAINS, first_mistake
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.resources import find_recipe
from embedtrain.section import Section
from embedtrain.training.frozen_documents import FrozenDocumentsConfig
from embedtrain.training.guide import GuideConfig
from embedtrain.training.refresh import RefreshConfig
from embedtrain.training.settings import TaskConfig, TrainerConfig, ValidationConfig
from embedtrain.training.sources import TrainingData, check_instructions, check_objectives


def _kind(model: object) -> str:
    """Return which kind of encoder a recipe's ``model:`` section describes: dense, unless it says so."""
    if isinstance(model, dict):
        return str(model.get("kind", "dense"))
    return str(getattr(model, "kind", "dense"))


EncoderConfig = Annotated[
    Annotated[DenseConfig, Tag("dense")]
    | Annotated[LateInteractionConfig, Tag("late_interaction")],
    Discriminator(_kind),
]


class Recipe(Section):
    """A training run, whole."""

    description: str
    """One line for `embedtrain recipes`: what it is for."""
    data: TrainingData
    model: EncoderConfig
    objective: AnyObjective = InfoNCE()
    trainer: TrainerConfig
    guide: GuideConfig | None = None
    """A second model that judges the batch, for objectives that use one."""
    frozen_documents: FrozenDocumentsConfig | None = None
    """Train the encoder of queries only; null trains both sides."""
    refresh: RefreshConfig | None = None
    """Mine new negatives with the model in training; null keeps those of ``data.sources``."""
    validation: ValidationConfig | None = None
    evaluation: TaskConfig | None = None
    """Measured before and after training, with confidence intervals and a paired test."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the steps of each source are trained on."""
        return tuple(source.objective or self.objective for source in self.data.sources)

    @model_validator(mode="after")
    def _parts_fit(self) -> "Recipe":
        check_objectives(self.objectives, self.model, guide=self.guide is not None)
        check_instructions(self.data, self.model)
        live = self.frozen_documents is not None and self.frozen_documents.live_negatives
        if self.guide is not None and (self.refresh is not None or live):
            raise ValueError(
                "a guide knows the texts of data.sources only: drop guide, refresh or live_negatives"
            )
        if self.frozen_documents is not None and self.refresh is not None:
            raise ValueError("frozen documents are mined by live_negatives: drop refresh")
        if self.frozen_documents is not None and any(o.uses_exits for o in self.objectives):
            raise ValueError("frozen documents have the last layer's vectors only: drop exits")
        if self.trainer.patience is not None and self.validation is None:
            raise ValueError("trainer.patience waits for a better validation: add validation")
        for size in self.data.batch_sizes(self.trainer.batch_size):
            if size % self.trainer.accumulate:
                raise ValueError(
                    f"a source's batch_size {size} is no multiple of trainer.accumulate"
                )
        return self

    @model_validator(mode="after")
    def _validation_is_not_evaluation(self) -> "Recipe":
        named = [
            (task.path, task.split)
            for task in (self.validation, self.evaluation)
            if task is not None and task.path is not None  # two fractions are disjoint
        ]
        if len(set(named)) < len(named):
            raise ValueError(
                "validation and evaluation name the same split: the reported score would be chosen, "
                "not measured"
            )
        return self


AnyRecipe = Recipe | PretrainRecipe
GivenRecipe = str | Path | Mapping[str, Any] | Recipe | PretrainRecipe
"""A YAML file, the name of a recipe that comes with the package, the sections as a dict, or a recipe."""
Overrides = Sequence[str] | Mapping[str, Any]
"""``key.sub=value`` words, whose values are YAML, or ``"key.sub": value``."""


def load_recipe(recipe: GivenRecipe, overrides: Overrides = (), data: object = None) -> AnyRecipe:
    """Read a recipe and apply overrides.

    With ``model.kind: masked_autoencoder`` it is a recipe of pre-training.

    Args:
        recipe: A file, a name, a dict of the same sections, or a recipe that was read before.
        overrides: Keys to set, as words or as a dict.
        data: In place of ``data.sources``: a path, or rows in memory (:mod:`embedtrain.data.given`).

    Raises:
        UserError: At the first mistake, with the line of the file, the key or the text of the override.
    """
    place, content, root = _read(recipe)
    if "stages" in content:
        raise UserError(place, "has several stages", cure="Only `embedtrain train` runs them")
    sources = as_pairs(overrides)
    for key, value in sources.items():
        set_key(content, key, value)
    if data is not None:
        path = data if isinstance(data, str | Path) else keep_rows(data)
        set_key(content, "data.sources", [{"path": str(path)}])
    keep_given(content)
    model = content.get("model")
    pretrains = (
        model.get("kind") if isinstance(model, dict) else getattr(model, "kind", None)
    ) == PRETRAINS
    form: type[AnyRecipe] = PretrainRecipe if pretrains else Recipe
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise first_mistake(error, place, root, sources, form, content) from error


def _read(recipe: object) -> tuple[str, dict[str, Any], yaml.Node | None]:
    """Return where a recipe stands, a copy of its content, and its YAML where it has lines."""
    if isinstance(recipe, Recipe | PretrainRecipe):
        return "recipe", dict(recipe), None
    if isinstance(recipe, Mapping):
        return "recipe", copy_sections(recipe), None
    if not isinstance(recipe, str | Path):
        cure = "Give a path, a recipe's name, a dict or a Recipe"
        raise UserError("recipe", "is none", got=type(recipe).__name__, cure=cure)
    path = find_recipe(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(path, "does not exist", cure="See `embedtrain recipes`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, "cannot be read", got=str(error)) from error
    content = parse_yaml(str(path), text)
    if not isinstance(content, dict):
        kind, cure = type(content).__name__, "Write keys such as data: and model:"
        raise UserError(path, "is not a recipe", got=kind, cure=cure)
    return str(path), content, yaml.compose(text)


def load_retrieval_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe that is not one of pre-training.

    Raises:
        UserError: At the first mistake, or if it is one of pre-training.
    """
    return refuse_pretraining(load_recipe(path, overrides), path)


def refuse_pretraining(recipe: AnyRecipe, place: object) -> Recipe:
    """Return the recipe, or say that pre-training has nothing to measure or search."""
    if isinstance(recipe, PretrainRecipe):
        raise UserError(
            place,
            "is a recipe of pre-training, which this command has no use for",
            cure="Fine-tune the encoder first",
        )
    return recipe


def dump_recipe(recipe: AnyRecipe, folder: Path | None = None) -> str:
    """Return the recipe as YAML with every default written out; data given in memory are copied to ``folder``."""
    content = recipe.model_dump(mode="json")
    if folder is not None:
        content = copy_given(content, folder)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def parse_yaml(place: str, text: str) -> Any:  # noqa: ANN401 - YAML may hold anything
    """Parse YAML; ``place`` is named in the error."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{place}{line}", f"is not valid YAML ({problem})") from error


def as_pairs(overrides: Overrides) -> dict[str, Any]:
    """Return the keys and values of overrides."""
    return dict(overrides if isinstance(overrides, Mapping) else map(split_override, overrides))


def as_words(overrides: Overrides) -> list[str]:
    """Return overrides as the words of a command."""
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def split_override(text: str) -> tuple[str, Any]:
    """Split ``key.sub=value`` and parse the value as YAML."""
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise UserError("override", "is not key=value", got=text, cure="Write trainer.seed=1")
    return key.strip(), parse_yaml(f"override {key}", value)


def set_key(content: dict[str, Any], key: str, value: object) -> None:
    """Set ``key.sub`` in nested dictionaries, making those that are missing."""
    *parents, last = key.split(".")
    for parent in parents:
        if content.get(parent) is None:
            content[parent] = {}
        if isinstance(content[parent], BaseModel):
            content[parent] = dict(content[parent])
        if not isinstance(content[parent], dict):
            raise UserError(
                f"override {key}", f"goes into {parent}, which has no keys", got=content[parent]
            )
        content = content[parent]
    content[last] = value
