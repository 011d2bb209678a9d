"""What a recipe's first mistake is called: one line with the place, the value and the cure."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import yaml

from embedtrain.errors import UserError

PRETRAINS = "masked_autoencoder"
"""The kind of model whose recipe is one of pre-training."""
NO_SECTION = ("dict_type", "model_type", "model_attributes_type")
"""What pydantic calls a value that should be a mapping."""


def describe_mistake(
    details: Mapping[str, Any],
    content: object,
    known: Sequence[str],
    *,
    place: str,
    root: yaml.Node | None,
    overrides: Sequence[str] = (),
) -> UserError:
    """Describe a mistake as the user would find it.

    ``known`` are the keys of the section that an unknown key stands in; ``root`` gives the line.
    """
    kind = details["type"]
    keys = keys_in_file(details, content)
    if kind == "union_tag_not_found":
        keys.append(details["ctx"]["discriminator"].strip("'"))
    name = ".".join(str(key) for key in keys) or "recipe"
    override = next((text for text in overrides if name.startswith(text)), None)
    line = place if root is None else f"{place}:{_line(keys, root)}"
    place = f"override {override}: {name}" if override else f"{line}: {name}"
    reason = details.get("ctx", {}).get("error")
    if isinstance(reason, UserError):  # of code that the recipe names
        return UserError(f"{place}:", str(reason).removesuffix("."))
    if kind == "extra_forbidden":
        return unknown_key(place, str(keys[-1]), known)
    if kind in ("missing", "union_tag_not_found"):
        return UserError(place, "is missing", cure="Add it")
    if kind == "union_tag_invalid":
        return _unknown_tag(place, details["ctx"], [PRETRAINS] if keys == ["model"] else [])
    return unusable(place, details, with_value=kind != "value_error" or bool(keys))


def _unknown_tag(place: str, context: Mapping[str, Any], more: Sequence[str]) -> UserError:
    names = [*sorted(context["expected_tags"].replace("'", "").split(", ")), *more]
    tag = str(context["tag"])
    cure = _close_to(tag, names) or f"Choose one of {', '.join(names)}"
    return UserError(place, "names nothing known", got=tag, cure=cure)


def worst_of(errors: Sequence[Any]) -> Any:  # noqa: ANN401 - pydantic's errors
    """Return the error to tell: a key that is misspelt says more than that the right one is missing."""
    return next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])


def unknown_key(place: str, key: str, known: Sequence[str]) -> UserError:
    """Return the error for a key that a section does not have."""
    cure = _close_to(key, known) or f"Known keys: {', '.join(known)}"
    return UserError(place, "is an unknown key", cure=cure)


def unusable(place: str, details: Mapping[str, Any], *, with_value: bool) -> UserError:
    """Return the error for a value that pydantic refuses, in its words."""
    got = details["input"] if with_value else ...
    if details["type"] in NO_SECTION:
        return UserError(place, "must have keys of its own", got=got, cure="Write key: value")
    message = details["msg"].removeprefix("Value error, ")
    problem = f"is not usable ({message[0].lower()}{message[1:]})"
    is_word = details["type"] == "string_type" and isinstance(got, bool | int | float)
    cure = (
        """Put the word in quotes, which a shell needs twice: '"yes"'"""
        if is_word
        else "Correct it"
    )
    return UserError(place, problem, got=got, cure=cure)


def keys_in_file(details: Mapping[str, Any], content: Any) -> list[str | int]:  # noqa: ANN401
    """Drop from pydantic's location what names a branch of a union and not a key of the file."""
    kept: list[str | int] = []
    for key in details["loc"]:
        if (isinstance(content, Mapping) and key in content) or (
            isinstance(content, list | tuple) and isinstance(key, int) and key < len(content)
        ):
            content = content[key]
        else:
            continue
        kept.append(key)
    return [*kept, details["loc"][-1]] if details["type"] == "missing" else kept


def _line(keys: Sequence[str | int], node: yaml.Node) -> int:
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


def _close_to(word: str, known: Sequence[str]) -> str:
    return "".join(f"Did you mean {name}?" for name in get_close_matches(word, known, 1))
