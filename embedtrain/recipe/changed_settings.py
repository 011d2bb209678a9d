"""What a recipe says beyond the defaults: the part of it that a reader of a card or a report wants."""

from collections.abc import Sequence
from typing import Any

import yaml

from embedtrain.data.given import name_given
from embedtrain.recipe.retrieval import AnyRecipe, Recipe

TAGS = ("kind", "name")
"""Keys that say which class a section is of: needed to read it, even where the value is that class's default."""


class _Dumper(yaml.SafeDumper):
    """Writes a list of plain values on one line, as people do."""


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    plain = not any(isinstance(one, dict | list) for one in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=plain)


_Dumper.add_representer(list, _represent_list)


def filled_keys(asked: Recipe, resolved: Recipe) -> list[str]:
    """Return the keys of ``model`` that a recipe left open and its backbone filled, as ``query.prompt``."""
    return _filled(asked.model.model_dump(mode="json"), resolved.model.model_dump(mode="json"))


def _filled(asked: dict[str, Any], resolved: dict[str, Any]) -> list[str]:
    keys = []
    for key, value in resolved.items():
        if asked.get(key) is None and value is not None:
            keys.append(key)
        elif isinstance(value, dict) and isinstance(asked[key], dict):
            keys += [f"{key}.{inner}" for inner in _filled(asked[key], value)]
    return keys


def dump_changed(recipe: AnyRecipe, filled: Sequence[str] = ()) -> str:
    """Return as YAML only what differs from the defaults; read as a recipe it is the same one.

    Data that were given in memory have no path that helps a reader: it only says that they were.

    Args:
        recipe: As it is in the run folder.
        filled: Keys of its model that the backbone decided (:func:`filled_keys`); it will do so again.
    """
    whole = recipe.model_dump(mode="json")
    changed = _with_tags(recipe.model_dump(mode="json", exclude_defaults=True), whole)
    for key in filled:
        _leave_out(changed["model"], key.split("."))
    if changed["model"].get("kind") == "dense":
        del changed["model"]["kind"]  # what a model is without one
    return yaml.dump(changed, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _leave_out(section: dict[str, Any], key: list[str]) -> None:
    """Remove a key, and the sections that are empty without it."""
    name, *inner = key
    if inner and isinstance(section.get(name), dict):
        _leave_out(section[name], inner)
    if not inner or not section.get(name):
        section.pop(name, None)


def _with_tags(changed: Any, whole: Any) -> Any:  # noqa: ANN401 - YAML may hold anything
    """Put back the tags that excluding defaults took away."""
    if isinstance(changed, list):
        return [_with_tags(*pair) for pair in zip(changed, whole, strict=True)]
    if not isinstance(changed, dict):
        return name_given(changed) if isinstance(changed, str) else changed
    tags = {key: whole[key] for key in TAGS if whole.get(key) is not None}
    return tags | {key: _with_tags(value, whole[key]) for key, value in changed.items()}
