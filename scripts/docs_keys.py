"""The page about the keys of a recipe, made from the classes that check them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from embedtrain.mining.settings import MiningConfig
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import Recipe
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.training.adapters.fit import AdaptConfig
from embedtrain.workflows.pipeline import Pipeline
from embedtrain.workflows.static import StaticConfig

Schema = dict[str, Any]

ROOTS = {
    "A training run": Recipe,
    "A pre-training run": PretrainRecipe,
    "Several stages": Pipeline,
    "Words of `embedtrain synth`": SynthesisConfig,
    "Words of `embedtrain mine`": MiningConfig,
    "Words of `embedtrain adapt`": AdaptConfig,
    "Words of `embedtrain static`": StaticConfig,
}
"""What a user writes keys of, by its heading."""

OBJECTIVE = "`objective: "
HOLD_OBJECTIVES = ("objective", "inner", "objectives[]")
"""Keys whose values are objectives."""
OBJECTIVES = {"objectives": "Objectives", "pretraining-objectives": "Objectives of pre-training"}
"""Headings by their anchors."""
OWN = "Also one of your own, as `name: my_module:MyObjective`: see [Add an objective](../add_an_objective.md)."

INTRODUCTION = """# Keys of a recipe

Every key that a recipe may have, with its default and what it does. An unknown key is an error that names
the nearest known one. Any key can be changed on the command line: `trainer.seed=1`, values are YAML.
`embedtrain recipes show NAME` prints a recipe, and a run's `recipe.yaml` has every default written out.
"""


def keys_page() -> str:
    """Return the page: one table of keys for every section of a recipe."""
    roots, schema = models_json_schema(
        [(model, "validation") for model in ROOTS.values()], ref_template="{model}"
    )
    names = [roots[model, "validation"]["$ref"] for model in ROOTS.values()]
    book = Book(schema["$defs"], dict(zip(names, ROOTS, strict=True)))
    return "\n\n".join([INTRODUCTION, *book.sections()]) + "\n"


class Book:
    """The sections of all roots.

    Args:
        definitions: JSON schemas by the names of their classes.
        roots: Headings by the names of the classes that users begin with.
    """

    def __init__(self, definitions: dict[str, Schema], roots: Mapping[str, str]) -> None:
        self.definitions = definitions
        self.roots = roots
        self.titles: dict[str, str] = dict(roots)
        self.parts = {root: [root, *self._reach(root, "")] for root in roots}

    def sections(self) -> Iterator[str]:
        """Yield the roots with what stands below them, each root's objectives at its end."""
        for root, names in self.parts.items():
            objectives = [name for name in names if self.titles[name].startswith(OBJECTIVE)]
            for name in names:
                if name not in objectives:
                    yield self._section(name, "##" if name == root else "###")
            if objectives:
                yield f"## {OBJECTIVES[_objectives(objectives)]} {{ #{_objectives(objectives)} }}\n\n{OWN}"
                yield from (self._section(name, "###") for name in objectives)

    def _reach(self, name: str, path: str) -> list[str]:
        """Name the sections below one, in the order of reading, and note where each stands first."""
        found: list[str] = []
        for key, value in self.definitions[name]["properties"].items():
            several = "[]" if value.get("type") == "array" else ""
            inner = f"{path}.{key}{several}" if path else f"{key}{several}"
            for reference in _references(value):
                if reference in self.titles or "properties" not in self.definitions[reference]:
                    continue
                self.titles[reference] = self._title(reference, inner)
                found += [reference, *self._reach(reference, inner)]
        return found

    def _title(self, name: str, path: str) -> str:
        """Return where a section stands: ``model`` with its kind, ``objective`` with its name."""
        properties = self.definitions[name]["properties"]
        key = next((key for key in ("name", "kind") if "const" in properties.get(key, {})), None)
        if key is None:
            return f"`{path}`"
        place = "objective" if path.split(".")[-1] in HOLD_OBJECTIVES else path
        return f"`{place}: {{{key}: {properties[key]['const']}}}`"

    def _section(self, name: str, level: str) -> str:
        definition = self.definitions[name]
        required = set(definition.get("required", ()))
        heading = f"{level} {self.titles[name]} {{ #{_anchor(name)} }}"
        rows = []
        for key, value in definition["properties"].items():
            if "const" in value:
                continue
            default = "required" if key in required else _default(value.get("default"))
            meaning = _cell(value.get("description", ""))
            rows.append(f"| `{key}` | {self._kind(value)} | {default} | {meaning} |")
        if rows:
            rows = ["", "| Key | Values | Default | Meaning |", "|---|---|---|---|", *rows]
        return "\n".join([heading, "", _prose(definition.get("description", "")), *rows])

    def _kind(self, value: Schema) -> str:
        """Say in words what a key may hold."""
        if "$ref" in value:
            name = value["$ref"]
            if name in self.titles:
                return f"[{self.titles[name]}](#{_anchor(name)})"
            return self._kind(self.definitions[name])
        union = value.get("anyOf") or value.get("oneOf")
        if union:
            named = [part["$ref"] for part in _flat(union) if "$ref" in part]
            if all(self.titles.get(name, "").startswith(OBJECTIVE) for name in named) and named:
                return f"any [objective](#{_objectives(named)})"
            return " or ".join(dict.fromkeys(map(self._kind, union)))
        if "enum" in value:
            return ", ".join(f"`{choice}`" for choice in value["enum"])
        if value.get("type") == "array":
            inner = value.get("items") or (value.get("prefixItems") or [{}])[0]
            return f"list of {self._kind(inner)}"
        inner = value.get("additionalProperties")
        if isinstance(inner, dict):
            return f"names, each with {self._kind(inner)}"
        return _plain(value)


def _objectives(names: Sequence[str]) -> str:
    """Return the anchor of the objectives of retrieval, or of those of pre-training."""
    return "objectives" if "InfoNCE" in names else "pretraining-objectives"


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for key, part in value.items():
            if key != "discriminator":
                yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


def _flat(union: Sequence[Schema]) -> Iterator[Schema]:
    for part in union:
        inner = part.get("anyOf") or part.get("oneOf")
        yield from _flat(inner) if inner else (part,)


def _plain(value: Schema) -> str:
    if "const" in value:
        return f"`{value['const']}`"
    names = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "`true`, `false`",
        "null": "null",
        "object": "keys",
    }
    kind = names.get(value.get("type", ""), "anything")
    signs = {
        "exclusiveMinimum": "above",
        "minimum": "from",
        "exclusiveMaximum": "below",
        "maximum": "to",
    }
    if "minimum" in value:
        signs.pop("exclusiveMinimum")
    bounds = [f"{word} {value[key]:g}" for key, word in signs.items() if key in value]
    return " ".join([kind, *bounds])


def _default(value: object) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict | list):
        return "its defaults" if value else "none"
    return f"`{value}`" if value != "" else '`""`'


def _prose(text: str) -> str:
    """Turn a docstring into Markdown: formulas become blocks of TeX, roles become code."""
    text = re.sub(
        r"\$\$(.+?)\$\$", lambda found: f"```tex\n{found[1].strip()}\n```", text, flags=re.DOTALL
    )
    text = re.sub(r"(?<!`)\$([^$\n]+)\$", r"`\1`", text)
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)


def _cell(text: str) -> str:
    return _prose(" ".join(text.split())).replace("|", "\\|")


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
