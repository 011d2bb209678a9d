"""YAML and ``key.sub=value`` words, before anybody knows what they mean."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from embedtrain.errors import UserError
from embedtrain.recipe.bounded_yaml import DEEPEST, parse, read_text
from embedtrain.resources import suggest_recipe
from embedtrain.training.settings import AUTO

Overrides = Sequence[str] | Mapping[str, Any]
"""``key.sub=value`` words, whose values are YAML, or ``"key.sub": value``."""


def read_file(path: Path) -> tuple[dict[str, Any], yaml.Node | None]:
    """Return the content of a recipe, and its YAML, whose parts know their lines.

    Raises:
        UserError: If it cannot be read or is no mapping.
    """
    if not path.exists():
        raise UserError(path, "does not exist", cure=suggest_recipe(str(path)))
    content, root = parse(str(path), read_text(path))
    if not isinstance(content, dict):
        kind, cure = type(content).__name__, "Write keys such as data: and model:"
        raise UserError(path, "is not a recipe", got=kind, cure=cure)
    return content, root


def set_keys(content: dict[str, Any], overrides: Overrides) -> list[str]:
    """Set the keys of overrides and return them."""
    pairs = dict(overrides if isinstance(overrides, Mapping) else map(split_override, overrides))
    for key, value in pairs.items():
        set_key(content, key, value)
    return list(pairs)


def as_words(overrides: Overrides) -> list[str]:
    """Return overrides as the words of a command."""
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def split_override(text: str) -> tuple[str, Any]:
    """Split ``key.sub=value`` and parse the value as YAML.

    Raises:
        UserError: If it is no such word, or the value cannot be read.
    """
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise UserError("override", "is not key=value", got=text, cure="Write trainer.seed=1")
    return key.strip(), parse(f"override {key}", value)[0]


def set_key(content: dict[str, Any], key: str, value: object) -> None:
    """Set ``key.sub`` in nested dictionaries, making those that are missing."""
    *parents, last = key.split(".")
    if len(parents) > DEEPEST:
        raise UserError(f"override {key[:60]}...", "is nested too deeply", cure="Correct the key")
    for parent in parents:
        if content.get(parent) is None:
            content[parent] = {}
        if isinstance(content[parent], BaseModel):
            content[parent] = dict(content[parent])
        if parent == "trainer" and content[parent] == AUTO:
            content[parent] = {AUTO: True}
        if not isinstance(content[parent], dict):
            raise UserError(
                f"override {key}", f"goes into {parent}, which has no keys", got=content[parent]
            )
        content = content[parent]
    content[last] = value


def set_stage_keys(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set ``NAME.key.sub`` in the stages of a recipe that has some."""
    stages = content.get("stages")
    listed = stages if isinstance(stages, list) else []
    named = {
        stage["name"]: stage
        for stage in listed
        if isinstance(stage, dict) and isinstance(stage.get("name"), str) and len(stage) > 1
    }
    for key, value in map(split_override, overrides):
        name, _, rest = key.partition(".")
        if name not in named or not rest:
            cure = f"Begin with a stage's name: {', '.join(named)}"
            raise UserError(f"override {key}", "names no stage", cure=cure)
        work = next(part for part in named[name] if part != "name")
        set_key(named[name], f"{work}.{rest}", value)
