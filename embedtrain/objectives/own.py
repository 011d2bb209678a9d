"""Which objective a recipe's section names: one of the package, or a class of the user's own."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules
from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import BaseModel, Field, PlainSerializer, WrapValidator

from embedtrain.errors import UserError
from embedtrain.plugins import find_reference, load_plugin

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
    return kind


def any_objective(kinds: Mapping[str, type[BaseModel]], form: type[BaseModel]) -> Any:  # noqa: ANN401 - a type
    """Return the type of a section: one of ``kinds`` by its name, any other subclass of ``form``, or an instance."""

    def read(value: object, handler: Callable[[object], object]) -> object:
        if isinstance(value, form):
            return value
        name = value.get("name") if isinstance(value, Mapping) else None
        kind = None if isinstance(name, str) and name in kinds else load_objective(name, form)
        if kind is None:
            return handler(value)
        assert isinstance(value, Mapping)
        return kind.model_validate({key: part for key, part in value.items() if key != "name"})

    def write(value: BaseModel, info: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's, a protocol
        mode, short = info.mode, info.exclude_defaults
        content = value.model_dump(mode=mode, exclude_defaults=short, exclude={"name"})
        return {"name": name_of(value), **content}

    known: Any = Union[tuple(kinds.values())]  # noqa: UP007
    return Annotated[
        known, Field(discriminator="name"), WrapValidator(read), PlainSerializer(write)
    ]
