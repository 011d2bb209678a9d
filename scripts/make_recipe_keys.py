"""Write what may stand in a recipe as a JSON Schema: for the check before torch is imported, and for editors.

python scripts/make_recipe_keys.py           writes embedtrain/recipe/keys.json
"""

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from embedtrain.recipe.keys import KEYS, PRETRAINS
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import Recipe
from embedtrain.workflows.pipeline import Pipeline

Schema = dict[str, Any]
FORMS = (Recipe, PretrainRecipe, Pipeline)


def render_keys() -> str:
    """Return the file's content: one section a line, so that a change of one shows as such."""
    _, found = models_json_schema([(form, "validation") for form in FORMS], title="Recipe")
    sections: dict[str, Schema] = {name: _tidy(part) for name, part in found["$defs"].items()}
    kinds = sections["Recipe"]["properties"]["model"]
    references = {part["$ref"].rpartition("/")[2]: part["$ref"] for part in kinds["oneOf"]}
    mapping = {sections[name]["properties"]["kind"]["const"]: r for name, r in references.items()}
    kinds["discriminator"] = {
        "propertyName": "kind",
        "mapping": mapping,
        "defaultMapping": next(iter(mapping)),
    }
    shared = _share(sections, "discriminator", "AnyObjective", "info_nce")
    shared["oneOf"].append(_own_class())
    sections["AnyObjective"] = shared
    lines = [f"{json.dumps(name)}: {json.dumps(part)}" for name, part in sorted(sections.items())]
    head = json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **_choose_form()})
    return f'{head[:-1]}, "$defs": {{\n' + ",\n".join(lines) + "\n}}\n"


def _choose_form() -> Schema:
    """Say to editors which of the three a file is."""
    kind = {"properties": {"kind": {"const": PRETRAINS}}, "required": ["kind"]}
    plain = {
        "if": {"properties": {"model": kind}, "required": ["model"]},
        "then": {"$ref": "#/$defs/PretrainRecipe"},
        "else": {"$ref": "#/$defs/Recipe"},
    }
    stages = {"if": {"required": ["stages"]}, "then": {"$ref": "#/$defs/Pipeline"}, "else": plain}
    return {"title": "A recipe of embedtrain", "type": "object", **stages}


def _own_class() -> Schema:
    """The objective of the user's own, named as ``package.module:Class``."""
    name = {"type": "string", "pattern": ":"}
    return {"type": "object", "properties": {"name": name}, "required": ["name"]}


def _tidy(part: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Leave out the titles, which say the names again."""
    if isinstance(part, list):
        return [_tidy(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    kept = {k: v for k, v in part.items() if not (k == "title" and isinstance(v, str))}
    return {key: _tidy(inner) for key, inner in kept.items()}


def _share(part: Any, mark: str, name: str, tag: str) -> Schema:  # noqa: ANN401
    """Put a reference in the place of every choice that knows ``tag``; return the choice."""
    found: Schema = {}
    for inner in part.values() if isinstance(part, dict) else part:
        if not isinstance(inner, dict | list):
            continue
        if isinstance(inner, dict) and tag in inner.get(mark, {}).get("mapping", {}):
            found = {key: inner.pop(key) for key in (mark, "oneOf")}
            inner["$ref"] = f"#/$defs/{name}"
        else:
            found = _share(inner, mark, name, tag) or found
    return found


if __name__ == "__main__":
    KEYS.write_text(render_keys(), encoding="utf-8")
    print(f"{KEYS}: {KEYS.stat().st_size:,} bytes")
