"""The recipe: one YAML file that says what a training run is.

Every section's fields are declared by its owner; this file composes them and checks that they fit.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Tag,
    ValidationError,
    model_validator,
)

from embedtrain.data.given import copy_given, copy_sections, keep_given, keep_rows
from embedtrain.errors import UserError
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.objectives import AnyObjective, Objective
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.plugins import IMPORTED, load_plugin
from embedtrain.recipe.keys import form_of, known_keys
from embedtrain.recipe.mistakes import describe_mistake, keys_in_file, worst_of
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.reading import Overrides, read_file, set_key, set_keys
from embedtrain.resources import find_recipe
from embedtrain.section import Section
from embedtrain.training.frozen_documents import FrozenDocumentsConfig
from embedtrain.training.guide import GuideConfig
from embedtrain.training.refresh import RefreshConfig
from embedtrain.training.search_space import TuneConfig
from embedtrain.training.settings import (
    TaskConfig,
    TrainerConfig,
    ValidationConfig,
    check_measuring,
)
from embedtrain.training.source_checks import (
    check_adapters,
    check_added_negatives,
    check_alone,
    check_candidates,
    check_guide_text,
    check_guided_documents,
    check_instructions,
    check_objectives,
    check_told,
    check_words,
)
from embedtrain.training.sources import TrainingData, TrainingSource


def _kind(model: object) -> str:
    """Return which kind of encoder a recipe's ``model:`` section describes: dense, unless it says so."""
    if isinstance(model, dict):
        return str(model.get("kind", "dense"))
    return str(getattr(model, "kind", "dense"))


ModelConfig = Annotated[
    Annotated[DenseConfig, Tag("dense")]
    | Annotated[LateInteractionConfig, Tag("late_interaction")]
    | Annotated[SparseConfig, Tag("sparse")]
    | Annotated[CrossEncoderConfig, Tag("cross_encoder")],
    Discriminator(_kind),
]


def _of_pairs(source: TrainingSource, model: CrossEncoderConfig) -> TrainingSource:
    """Return a source as a cross-encoder has use for it: names of classes have the numbers that the model gives them."""
    objective, columns = source.objective, source.columns
    if model.classes and columns.label is not None:
        columns = columns.model_copy(update={"classes": model.classes})
    changed = {"objective": objective and objective.for_pairs(), "columns": columns}
    return source.model_copy(update=changed)


class Recipe(Section):
    """A training run, whole."""

    description: str
    """One line for `embedtrain recipes`: what it is for."""
    data: TrainingData
    model: ModelConfig
    objective: AnyObjective = InfoNCE()
    trainer: Annotated[
        TrainerConfig,
        BeforeValidator(
            lambda given: given, json_schema_input_type=TrainerConfig | Literal["auto"]
        ),
    ]
    guide: GuideConfig | None = None
    """A second model that judges the batch, for objectives that use one."""
    frozen_documents: FrozenDocumentsConfig | None = None
    """Train the encoder of queries only; null trains both sides."""
    refresh: RefreshConfig | None = None
    """Mine new negatives with the model in training; null keeps those of ``data.sources``."""
    validation: ValidationConfig | None = None
    evaluation: TaskConfig | None = None
    """Measured before and after training, with confidence intervals and a paired test."""
    tune: TuneConfig | None = None
    """What `embedtrain tune` varies; other commands do not look at it."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the steps of each source are trained on."""
        return tuple(source.objective or self.objective for source in self.data.sources)

    @property
    def tasks(self) -> tuple[str | None, ...]:
        """Whose adapters act in the steps of each source."""
        return tuple(source.adapter for source in self.data.sources)

    @model_validator(mode="after")
    def _scores_are_of_pairs(self) -> "Recipe":
        """Give objectives the defaults that suit a cross-encoder; a frozen section can be completed only here."""
        if isinstance(self.model, CrossEncoderConfig):
            parts = [_of_pairs(source, self.model) for source in self.data.sources]
            data = self.data.model_copy(update={"sources": tuple(parts)})
            object.__setattr__(self, "data", data)
            object.__setattr__(self, "objective", self.objective.for_pairs())
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "Recipe":
        check_objectives(self.objectives, self.model, guide=self.guide is not None)
        check_words(self.objectives, self.model, self.trainer.accumulate)
        check_instructions(self.data, self.model)
        check_adapters(self.data, self.model, self.trainer)
        check_added_negatives(self.data, self.objectives)
        check_alone(self.data, self.objectives, self.trainer.micro_batch)
        check_candidates(
            self.data, self.objectives, fixed=self.frozen_documents is None and self.refresh is None
        )
        check_guide_text(self.data, guide=self.guide is not None)
        live = self.frozen_documents is not None and self.frozen_documents.live_negatives
        if self.guide is not None and (self.refresh is not None or live):
            raise ValueError(
                "a guide knows the texts of data.sources only: drop guide, refresh or live_negatives"
            )
        if any(source.negatives is not None for source in self.data.sources) and (
            self.guide is not None or self.frozen_documents is not None
        ):
            raise ValueError(
                "guide and frozen_documents know the texts of data.sources only: drop them, or give the rows "
                "that `embedtrain mine` writes in place of negatives"
            )
        if self.guide is not None and self.guide.encodes_documents:
            frozen = self.frozen_documents is not None
            check_guided_documents(self.objectives, self.model, self.guide, frozen=frozen)
        if self.frozen_documents is not None and self.refresh is not None:
            raise ValueError("frozen documents are mined by live_negatives: drop refresh")
        if self.frozen_documents is not None and any(o.uses_exits for o in self.objectives):
            raise ValueError("frozen documents have the last layer's vectors only: drop exits")
        if isinstance(self.model, CrossEncoderConfig):
            refuse_vectors(self)
        elif self.validation is not None and self.validation.first_stage is not None:
            raise ValueError(
                "validation.first_stage is for cross-encoders: a retriever searches itself"
            )
        check_told(self.validation, self.model)
        check_measuring(self.trainer, self.validation, self.evaluation)
        for size in self.data.batch_sizes(self.trainer.batch_size):
            if size % self.trainer.accumulate:
                raise ValueError(
                    f"a source's batch_size {size} is no multiple of trainer.accumulate"
                )
        return self


def refuse_vectors(recipe: Recipe) -> None:
    """Refuse sections that need vectors, which a cross-encoder does not make.

    Raises:
        ValueError: Naming the section.
    """
    if recipe.trainer.blend is not None:
        raise ValueError("trainer.blend is for retrievers: drop it")
    for name in ("guide", "frozen_documents", "refresh"):
        if getattr(recipe, name) is not None:
            raise ValueError(f"a cross-encoder makes no vectors: drop {name}")
    if getattr(recipe.model, "classes", ()) and recipe.validation is not None:
        raise ValueError("classes of pairs put no documents in order: drop validation")
    if recipe.evaluation is not None:
        raise ValueError(
            "a cross-encoder is measured behind a first stage: drop evaluation, and run `embedtrain evaluate "
            "RETRIEVER --rerank MODEL` afterwards"
        )


AnyRecipe = Recipe | PretrainRecipe
FORMS: dict[str, type[AnyRecipe]] = {form.__name__: form for form in (Recipe, PretrainRecipe)}
GivenRecipe = str | Path | Mapping[str, Any] | Recipe | PretrainRecipe
"""A YAML file, the name of a recipe that comes with the package, the sections as a dict, or a recipe."""


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
    if isinstance(recipe, Mapping) or data is not None:  # nobody lists it
        content.setdefault("description", "From Python.")
    given = set_keys(content, overrides)
    if data is not None:
        path = data if isinstance(data, str | Path) else keep_rows(data)
        set_key(content, "data.sources", [{"path": str(path)}])
    keep_given(content)
    form: type[AnyRecipe] = FORMS[form_of(content)]
    try:
        return form.model_validate(content)
    except ValidationError as error:
        details = worst_of(error.errors())
        known = _own_keys(content, keys_in_file(details, content)[:-1])
        known = known or known_keys(form.__name__, details["loc"])
        raise describe_mistake(
            details, content, known, place=place, root=root, overrides=given
        ) from error


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
    return str(path), *read_file(path)


def _own_keys(content: Any, keys: Sequence[str | int]) -> list[str]:  # noqa: ANN401 - any part of a recipe
    """Return the keys of a section that names an objective of the user's own, which was imported to read it."""
    for key in keys:
        content = content[key]
    name = content.get("name") if isinstance(content, Mapping) else None
    if not isinstance(name, str) or name not in IMPORTED:
        return []
    kind = load_plugin(name, "embedtrain.objectives")
    return (
        sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
    )


def load_retrieval_recipe(path: str | Path) -> Recipe:
    """Read a recipe that is not one of pre-training.

    Raises:
        UserError: At the first mistake, or if it is one of pre-training.
    """
    return refuse_pretraining(load_recipe(path), path)


def refuse_pretraining(recipe: AnyRecipe, place: object) -> Recipe:
    """Return the recipe, or say that pre-training has nothing to measure or search."""
    if isinstance(recipe, PretrainRecipe):
        raise UserError(
            place,
            "is a recipe of pre-training, which this command has no use for",
            cure="Fine-tune the encoder first",
        )
    return recipe


def dump_recipe(recipe: AnyRecipe, folder: Path | None = None, place: Path | None = None) -> str:
    """Return the recipe as YAML with every default written out; data given in memory are copied to ``folder``.

    ``place`` is where that folder will lie, if not where it is.
    """
    content = recipe.model_dump(mode="json")
    if folder is not None:
        content = copy_given(content, folder, place or folder)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
