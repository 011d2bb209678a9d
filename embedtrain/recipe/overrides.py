"""Settings of a command that are not a recipe: ``key.sub=value`` words and a section's class."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from embedtrain.errors import UserError
from embedtrain.recipe.retrieval import set_key, split_override

Section = TypeVar("Section", bound=BaseModel)


def read_section(section: type[Section], overrides: Sequence[str]) -> Section:
    """Return the section's defaults with ``overrides`` applied.

    Raises:
        UserError: At the first mistake, naming the key.
    """
    content: dict[str, Any] = {}
    for key, value in map(split_override, overrides):
        set_key(content, key, value)
    try:
        return section.model_validate(content)
    except ValidationError as error:
        details = error.errors()[0]
        name = ".".join(str(part) for part in details["loc"])
        if details["type"] == "extra_forbidden":
            close = get_close_matches(str(details["loc"][-1]), section.model_fields, 1)
            known = f"Known keys: {', '.join(section.model_fields)}"
            cure = f"Did you mean {close[0]}?" if close else known
            raise UserError(name, "is an unknown key", cure=cure) from error
        message = details["msg"].removeprefix("Value error, ")
        problem = f"is not usable ({message[0].lower()}{message[1:]})"
        raise UserError(name, problem, got=details["input"], cure="Correct it") from error
