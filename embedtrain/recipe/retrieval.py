"""The recipe: one YAML file that says what a training run is.

Every section's fields are declared by its owner; this file composes them, reads YAML and overrides, and
turns mistakes into one line that names the place, the value and the cure.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import (
    BaseModel,
    Discriminator,
    Tag,
    ValidationError,
    model_validator,
)

from embedtrain.errors import UserError
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.late_interaction.encoder import LateInteractionConfig
from embedtrain.objectives import AnyObjective, Objective
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.section import Section
from embedtrain.training.frozen_documents import FrozenDocumentsConfig
from embedtrain.training.guide import GuideConfig
from embedtrain.training.refresh import RefreshConfig
from embedtrain.training.settings import TaskConfig, TrainerConfig, ValidationConfig
from embedtrain.training.sources import TrainingData, check_instructions, check_objectives

Node = yaml.Node
PRETRAINS = "masked_autoencoder"
"""The kind of model whose recipe is one of pre-training."""


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
        for size in self.data.batch_sizes(self.trainer.batch_size):
            if size % self.trainer.accumulate:
                raise ValueError(
                    f"a source's batch_size {size} is no multiple of trainer.accumulate"
                )
        return self

    @model_validator(mode="after")
    def _validation_is_not_evaluation(self) -> "Recipe":
        seen, reported = self.validation, self.evaluation
        if seen and reported and (seen.path, seen.split) == (reported.path, reported.split):
            raise ValueError(
                "validation and evaluation name the same split: the reported score would be chosen, "
                "not measured"
            )
        return self


AnyRecipe = Recipe | PretrainRecipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe and apply ``key.sub=value`` overrides, whose values are YAML.

    With ``model.kind: masked_autoencoder`` it is a recipe of pre-training.

    Raises:
        UserError: At the first mistake, with the line of the file or the text of the override.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(path, "does not exist", cure="See `embedtrain recipes`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, "cannot be read", got=str(error)) from error
    content = parse_yaml(str(path), text)
    if not isinstance(content, dict):
        raise UserError(
            path,
            "is not a recipe",
            got=type(content).__name__,
            cure="Write keys such as data: and model:",
        )
    if "stages" in content:
        raise UserError(path, "has several stages", cure="Only `embedtrain train` runs them")
    sources = dict(map(split_override, overrides))
    for key, value in sources.items():
        set_key(content, key, value)
    model = content.get("model")
    pretrains = isinstance(model, dict) and model.get("kind") == PRETRAINS
    form: type[AnyRecipe] = PretrainRecipe if pretrains else Recipe
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise _first_mistake(error, path, yaml.compose(text), sources, form) from error


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


def dump_recipe(recipe: AnyRecipe) -> str:
    """Return the recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_yaml(place: str, text: str) -> Any:  # noqa: ANN401 - YAML may hold anything
    """Parse YAML; ``place`` is named in the error."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{place}{line}", f"is not valid YAML ({problem})") from error


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
        if not isinstance(content[parent], dict):
            raise UserError(
                f"override {key}", f"goes into {parent}, which has no keys", got=content[parent]
            )
        content = content[parent]
    content[last] = value


def _first_mistake(
    error: ValidationError,
    path: Path,
    root: Node | None,
    overrides: Mapping[str, object],
    form: type[AnyRecipe],
) -> UserError:
    """Describe the first mistake as the user would find it."""
    details = error.errors()[0]
    location, kind = details["loc"], details["type"]
    keys = _keys_in_file(location, form)
    name = ".".join(str(key) for key in keys) or "recipe"
    override = next((text for text in overrides if name.startswith(text)), None)
    line = f"{path}:{_line(keys, root)}"
    place = f"override {override}: {name}" if override else f"{line}: {name}"
    if kind == "extra_forbidden":
        known = sorted(_known_keys(location[:-1], form))
        close = get_close_matches(str(location[-1]), known, 1)
        cure = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(known)}"
        return UserError(place, "is an unknown key", cure=cure)
    if kind == "missing":
        return UserError(place, "is missing", cure="Add it")
    if kind == "union_tag_invalid":
        known = details["ctx"]["expected_tags"].replace("'", "")
        known += f", {PRETRAINS}" if keys == ["model"] else ""
        close = get_close_matches(str(details["ctx"]["tag"]), known.split(", "), 1)
        cure = f"Did you mean {close[0]}?" if close else f"Choose one of {known}"
        return UserError(place, "names nothing known", got=details["ctx"]["tag"], cure=cure)
    got = None if kind == "value_error" and not keys else details["input"]
    message = details["msg"].removeprefix("Value error, ")
    return UserError(
        place, f"is not usable ({message[0].lower()}{message[1:]})", got=got, cure="Correct it"
    )


def _keys_in_file(location: Sequence[str | int], form: type[AnyRecipe]) -> list[str | int]:
    """Drop from pydantic's location what stands for a union's branch and not for a key."""
    kept: list[str | int] = []
    tags = {tag for model in _models(form) for tag in _tags(model)}
    for key in location:
        if not (key in tags and kept and kept[-1] in ("objective", "inner", "model")):
            kept.append(key)
    return kept


def _line(keys: Sequence[str | int], node: Node | None) -> int:
    """Return the line of the deepest key that the file has, counted from 1."""
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            match = [(k, v) for k, v in node.value if k.value == str(key)]
            if not match:
                break
            line, node = match[0][0].start_mark.line + 1, match[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _known_keys(location: Sequence[str | int], form: type[AnyRecipe]) -> list[str]:
    """Return the keys of the section at a pydantic location."""
    candidates: list[type[BaseModel]] = [form]
    for key in location:
        if isinstance(key, int):
            continue
        inner = [
            model
            for candidate in candidates
            if key in candidate.model_fields
            for model in _models_in(candidate.model_fields[key].annotation)
        ]
        tagged = [model for model in candidates if key in _tags(model)]
        candidates = inner or tagged or candidates
    return [name for candidate in candidates for name in candidate.model_fields]


def _models(form: type[AnyRecipe]) -> list[type[BaseModel]]:
    return [model for field in form.model_fields.values() for model in _models_in(field.annotation)]


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    field = model.model_fields.get("name") or model.model_fields.get("kind")
    return get_args(field.annotation) if field else ()
