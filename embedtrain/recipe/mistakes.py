"""The first mistake in a recipe, in one line: its place in the file, the value and the cure."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from embedtrain.errors import UserError
from embedtrain.plugins import IMPORTED, load_plugin

Node = yaml.Node
PRETRAINS = "masked_autoencoder"
"""The kind of model whose recipe is one of pre-training."""


def first_mistake(
    error: ValidationError,
    place: str,
    root: Node | None,
    overrides: Mapping[str, object],
    form: type[BaseModel],
    content: object,
) -> UserError:
    """Describe the first mistake in ``content`` as the user would find it; ``root`` is its YAML, if it has any."""
    errors = error.errors()  # a key that is misspelt says more than that the right one is missing
    details = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    location, kind = details["loc"], details["type"]
    keys = _keys_in_file(location, form)
    name = ".".join(str(key) for key in keys) or "recipe"
    override = next((text for text in overrides if name.startswith(text)), None)
    line = place if root is None else f"{place}:{_line(keys, root)}"
    place = f"override {override}: {name}" if override else f"{line}: {name}"
    reason = details.get("ctx", {}).get("error")
    if isinstance(reason, UserError):  # of code that the recipe names
        return UserError(f"{place}:", str(reason).removesuffix("."))
    if kind == "extra_forbidden":
        known = sorted(_own_keys(content, keys[:-1]) or _known_keys(location[:-1], form))
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


def _keys_in_file(location: Sequence[str | int], form: type[BaseModel]) -> list[str | int]:
    """Drop from pydantic's location what stands for a union's branch and not for a key."""
    kept: list[str | int] = []
    tags = {tag for model in _models(form) for tag in _tags(model)}
    for key in location:
        holder = kept[-2:-1] if kept and isinstance(kept[-1], int) else kept[-1:]
        if not (key in tags and holder in (["objective"], ["objectives"], ["inner"], ["model"])):
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


def _own_keys(content: Any, keys: Sequence[str | int]) -> list[str]:  # noqa: ANN401 - any part of a recipe
    """Return the keys of a section that names an objective of the user's own, which was imported to read it."""
    for key in keys:
        content = content[key]
    name = content.get("name") if isinstance(content, Mapping) else None
    if not isinstance(name, str) or name not in IMPORTED:
        return []
    kind = load_plugin(name, "embedtrain.objectives")
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _known_keys(location: Sequence[str | int], form: type[BaseModel]) -> list[str]:
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


def _models(form: type[BaseModel]) -> list[type[BaseModel]]:
    return [model for field in form.model_fields.values() for model in _models_in(field.annotation)]


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    field = model.model_fields.get("name") or model.model_fields.get("kind")
    return get_args(field.annotation) if field else ()
