"""Settings of a command that are not a recipe: ``key.sub=value`` words and a section's class."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from embedtrain.recipe.mistakes import unknown_key, unusable
from embedtrain.recipe.reading import Overrides, set_keys

Section = TypeVar("Section", bound=BaseModel)


def read_section(section: type[Section], overrides: Overrides, flag: str = "") -> Section:
    """Return the section's defaults with ``overrides`` applied.

    Raises:
        UserError: At the first mistake, naming the key, and the flag where they are its words.
    """
    content: dict[str, Any] = {}
    set_keys(content, overrides)
    try:
        return section.model_validate(content)
    except ValidationError as error:
        details = error.errors()[0]
        name = ": ".join(filter(None, [flag, ".".join(str(part) for part in details["loc"])]))
        if details["type"] == "extra_forbidden":
            raise unknown_key(name, str(details["loc"][-1]), list(section.model_fields)) from error
        raise unusable(name, details, with_value=True) from error
