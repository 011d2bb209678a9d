"""Which objective a recipe's section names: one of the package, or a class of the user's own."""

import logging
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules
from typing import Annotated, Any, TypeVar, Union, get_args

import torch
from pydantic import BaseModel, Field, PlainSerializer, WrapValidator
from torch import Tensor
from torch.nn.functional import normalize

from embedtrain.errors import UserError
from embedtrain.plugins import find_reference, load_plugin
from embedtrain.types import ObjectiveOutput, Relevance, RetrievalOutputs

logger = logging.getLogger(__name__)

Form = TypeVar("Form", bound=BaseModel)


def find_objectives(package: str, path: Iterable[str], form: type[Form]) -> dict[str, type[Form]]:
    """Import every file of a package and return the subclasses of ``form`` by their names in a recipe."""
    for module in iter_modules(path):
        import_module(f"{package}.{module.name}")
    kinds = [kind for kind in form.__subclasses__() if not isabstract(kind)]
    return {get_args(kind.model_fields["name"].annotation)[0]: kind for kind in kinds}


def name_of(objective: BaseModel) -> str:
    """Return its name in a recipe: the package's own, or ``module:Class`` of any other class."""
    kind = type(objective)
    if kind.__module__.startswith(f"{__package__}."):
        return str(kind.model_fields["name"].default)
    return f"{kind.__module__}:{kind.__qualname__}"


def load_objective(name: object, form: type[BaseModel]) -> type[BaseModel] | None:
    """Import the class that a section's ``name`` stands for; None where it is no name of foreign code.

    Raises:
        UserError: If it cannot be imported or is no subclass of ``form``.
    """
    if not isinstance(name, str) or find_reference(name, "embedtrain.objectives") is None:
        return None
    kind = load_plugin(name, "embedtrain.objectives")
    if not (isinstance(kind, type) and issubclass(kind, form)):
        cure = f"Name a subclass of {form.__module__.removesuffix('.base')}.{form.__name__}"
        raise UserError(name, "is no objective", got=kind, cure=cure)
    if isabstract(kind):
        lacking = sorted(kind.__abstractmethods__)
        raise UserError(name, "lacks what every objective has", got=lacking, cure="Define it")
    return kind


def check_output(objective: object, result: object) -> ObjectiveOutput:
    """Return what an objective returned, which may be the user's own.

    Raises:
        UserError: If it is anything but a loss in its type.
    """
    loss = result.loss if isinstance(result, ObjectiveOutput) else None
    if not isinstance(result, ObjectiveOutput) or not isinstance(loss, Tensor) or loss.ndim:
        place = name_of(objective) if isinstance(objective, BaseModel) else type(objective).__name__
        cure = "Return ObjectiveOutput(loss, {}) with a tensor of no dimension as loss"
        raise UserError(place, "must return the loss of a batch", got=result, cure=cure)
    return result


def try_on_pairs(objective: Callable[[RetrievalOutputs], object]) -> None:
    """Call an objective of the user's own on random outputs: what it returns is seen before a model is loaded.

    What it raises there is no verdict: they lack much that its model and data may bring.

    Raises:
        UserError: If it returns no loss.
    """
    documents = torch.arange(4)
    positives, known = torch.tensor([[0], [2]]), torch.full((2, 1), -1)
    vectors = normalize(torch.linspace(-1, 1, 48).sin().view(6, 8), dim=1).requires_grad_()
    relevance = Relevance(
        documents[:2],
        documents,
        documents // 2,
        positives,
        known,
        teacher_scores=vectors[2:, 0].detach(),
    )
    try:
        with torch.random.fork_rng(devices=[]):
            result = objective(RetrievalOutputs(vectors[:2], vectors[2:], relevance))
    except Exception:
        logger.debug("%s cannot be tried on random outputs", objective, exc_info=True)
        return
    check_output(objective, result)


def any_objective(
    kinds: Mapping[str, type[BaseModel]],
    form: type[BaseModel],
    trial: Callable[[Any], None] | None = None,
) -> Any:  # noqa: ANN401 - a type
    """Return the type of a section: one of ``kinds`` by its name, any other subclass of ``form``, or an instance.

    ``trial`` looks at those of the user's own.
    """

    def read(value: object, handler: Callable[[object], object]) -> object:
        if isinstance(value, form):
            return tried(value)
        if isinstance(value, type) and issubclass(value, form):
            raise UserError(value.__qualname__, "is a class", got=value, cure="Give an instance")
        name = value.get("name") if isinstance(value, Mapping) else None
        kind = None if isinstance(name, str) and name in kinds else load_objective(name, form)
        if kind is None:
            return handler(value)
        assert isinstance(value, Mapping)
        values = {key: part for key, part in value.items() if key != "name"}
        return tried(kind.model_validate(values))

    def tried(objective: BaseModel) -> object:
        if trial is not None and ":" in name_of(objective):
            trial(objective)
        return objective

    def write(value: BaseModel, info: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's, a protocol
        mode, short = info.mode, info.exclude_defaults
        content = value.model_dump(mode=mode, exclude_defaults=short, exclude={"name"})
        return {"name": name_of(value), **content}

    known: Any = Union[tuple(kinds.values())]  # noqa: UP007
    return Annotated[
        known, Field(discriminator="name"), WrapValidator(read), PlainSerializer(write)
    ]
