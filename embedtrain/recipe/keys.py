"""A recipe's keys and values, checked in milliseconds: before torch is imported, before data are read.

``keys.json`` is a JSON Schema made from the classes of all sections by ``scripts/make_recipe_keys.py``; editors
read it as well. What depends on several keys, on files or on code of the user's own is left to those classes,
which check everything again: this only finds a mistake sooner.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic_core import SchemaValidator, ValidationError

from embedtrain.errors import UserError
from embedtrain.plugins import find_reference, refuse_missing
from embedtrain.recipe.mistakes import PRETRAINS, describe_mistake, worst_of
from embedtrain.recipe.reading import read_file, set_keys, set_stage_keys
from embedtrain.section import Section
from embedtrain.training.settings import (
    TaskConfig,
    TrainerConfig,
    ValidationConfig,
    check_measuring,
)

Schema = dict[str, Any]
KEYS = Path(__file__).with_name("keys.json")
BOUNDS = {
    "exclusiveMinimum": "gt",
    "minimum": "ge",
    "exclusiveMaximum": "lt",
    "maximum": "le",
    "minItems": "min_length",
    "maxItems": "max_length",
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
}
"""JSON Schema's names of limits, and pydantic's."""


@cache
def load_keys() -> dict[str, Schema]:
    """Return the schemas of all sections, by the name of their class."""
    schemas: dict[str, Schema] = json.loads(KEYS.read_text(encoding="utf-8"))["$defs"]
    return schemas


def form_of(content: dict[str, Any]) -> str:
    """Return the class of a recipe: of several stages, of pre-training, or of retrieval."""
    if "stages" in content:
        return "Pipeline"
    model = content.get("model")
    kind = model.get("kind") if isinstance(model, dict) else getattr(model, "kind", None)
    return "PretrainRecipe" if kind == PRETRAINS else "Recipe"


def check_keys(path: Path, overrides: Sequence[str] = ()) -> str:
    """Refuse a recipe with a mistake that can be seen without loading anything; return its class.

    Raises:
        UserError: At the first such mistake, in the words of :func:`embedtrain.recipe.retrieval.load_recipe`.
    """
    content, root = read_file(path)
    form = form_of(content)
    given: tuple[str, ...] = ()
    if form == "Pipeline":
        set_stage_keys(content, overrides)
    else:
        given = tuple(set_keys(content, overrides))
        form = form_of(content)

    def check(part: Schema, form: str, *above: str | int) -> None:
        if found := _mistakes(part, form):
            details = worst_of(found)
            known = known_keys(form, details["loc"])
            details["loc"] = (*above, *details["loc"])
            raise describe_mistake(
                details, content, known, place=str(path), root=root, overrides=given
            )

    check(content, form)
    for number, stage in enumerate(content["stages"] if form == "Pipeline" else ()):
        if isinstance(stage.get("train"), dict):  # its description is that of the whole
            recipe = {"description": ""} | stage["train"]
            check(recipe, form_of(recipe), "stages", number, "train")
    return form


def _mistakes(content: Schema, form: str) -> list[Any]:
    """Return what is wrong in any case, in the order in which the classes find it."""
    try:
        _validator(form).validate_python(content)
    except ValidationError as error:
        found = error.errors()
        foreign = [details for details in found if _is_foreign(details)]
        own = [
            details  # a list that holds one of the foreign ones is said to be too short
            for details in found
            if all(one["loc"][: len(details["loc"])] != details["loc"] for one in foreign)
        ]
        if own := own + [missing for one in foreign for missing in _not_found(one)]:
            return own
    return _between_keys(content, form)


def _between_keys(content: Schema, form: str) -> list[Any]:
    """Return what is wrong in sections whose classes import nothing heavy: keys that exclude or need others."""
    kinds: dict[str, type[Section]] = {"trainer": TrainerConfig}
    if form == "Recipe":
        kinds |= {"validation": ValidationConfig, "evaluation": TaskConfig}
    read: dict[str, Any] = dict.fromkeys(("trainer", "validation", "evaluation"))
    for name, kind in kinds.items():
        try:
            if content.get(name) is not None:
                read[name] = kind.model_validate(content[name])
        except ValidationError as error:
            return [one | {"loc": (name, *one["loc"])} for one in error.errors()]
    try:
        if form == "Recipe" and read["trainer"] is not None:
            check_measuring(**read)
    except ValueError as error:
        return [_refused(error, ())]
    return []


def _not_found(details: Any) -> list[Any]:  # noqa: ANN401 - one of pydantic's errors
    """Return the mistake of a foreign name whose package is not there."""
    try:
        refuse_missing(str(details["ctx"]["tag"]), "embedtrain.objectives")
    except UserError as error:
        return [_refused(error, details["loc"])]
    return []


def _refused(error: ValueError, location: tuple[str | int, ...]) -> dict[str, Any]:
    """Return the details that pydantic would give of an error that a validator raised."""
    about = {"msg": f"Value error, {error}", "input": None, "ctx": {"error": error}}
    return {"type": "value_error", "loc": location, **about}


def _is_foreign(details: Any) -> bool:  # noqa: ANN401 - one of pydantic's errors
    """Whether an unknown name is that of code outside the package, which only the classes may import."""
    if details["type"] != "union_tag_invalid":
        return False
    tag = str(details["ctx"]["tag"])
    return ":" in tag or find_reference(tag, "embedtrain.objectives") is not None


def known_keys(form: str, location: Sequence[str | int]) -> list[str]:
    """Return the keys that may stand where pydantic's location ends."""
    found = [load_keys()[form]]
    for key in location[:-1]:
        found = [inner for schema in found for inner in _inside(schema, key)] or found
    forms = [form for schema in found for form in _forms(schema)]
    return sorted({key for form in forms for key in form.get("properties", ())})


def _forms(schema: Schema) -> list[Schema]:
    """Return what a schema may stand for, of which one is a section."""
    schema = _resolved(schema)
    return [schema, *(form for part in schema.get("anyOf", ()) for form in _forms(part))]


def _inside(schema: Schema, key: str | int) -> list[Schema]:
    schema = _resolved(schema)
    inner = schema.get("properties", {}).get(key) or (
        schema.get("items") if isinstance(key, int) else schema.get("additionalProperties")
    )
    tagged = schema.get("discriminator", {}).get("mapping", {}).get(key)
    if tagged:
        inner = {"$ref": tagged}
    branches = [found for part in schema.get("anyOf", ()) for found in _inside(part, key)]
    return [inner, *branches] if isinstance(inner, dict) else branches


def _resolved(schema: Schema) -> Schema:
    return load_keys()[_name(schema["$ref"])] if "$ref" in schema else schema


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


@cache
def _validator(form: str) -> SchemaValidator:
    """Return what checks a recipe of this class, in pydantic's own words."""
    definitions = [_core(schema) | {"ref": name} for name, schema in load_keys().items()]
    whole: Any = {
        "type": "definitions",
        "schema": {"type": "definition-ref", "schema_ref": form},
        "definitions": definitions,
    }
    return SchemaValidator(whole)


def _core(schema: Schema) -> Schema:
    """Translate a JSON Schema into what pydantic compiles its classes to."""
    if "$ref" in schema:
        return {"type": "definition-ref", "schema_ref": _name(schema["$ref"])}
    if "discriminator" in schema:
        return _tagged(schema["discriminator"])
    if "anyOf" in schema:
        branches = [_core(part) for part in schema["anyOf"] if part.get("type") != "null"]
        union = {"type": "union", "choices": branches} if len(branches) > 1 else branches[0]
        optional = len(branches) < len(schema["anyOf"])
        return {"type": "nullable", "schema": union} if optional else union
    if "const" in schema or "enum" in schema:
        return {"type": "literal", "expected": schema.get("enum") or [schema["const"]]}
    bounds = {BOUNDS[key]: value for key, value in schema.items() if key in BOUNDS}
    kinds = {"integer": "int", "number": "float", "string": "str", "boolean": "bool"}
    kind = schema.get("type", "")
    if kind in kinds and "format" not in schema:
        return {"type": kinds[kind], **bounds}
    if kind == "array" and not schema.get("uniqueItems"):
        return _tuple(schema, bounds)
    return _section(schema) if kind == "object" else {"type": "any"}


def _tagged(discriminator: Schema) -> Schema:
    tag, usual = discriminator["propertyName"], discriminator.get("defaultMapping")
    choices = {
        name: {"type": "definition-ref", "schema_ref": _name(reference)}
        for name, reference in discriminator["mapping"].items()
    }

    def find(value: Any) -> Any:  # noqa: ANN401 - any part of a recipe
        return value.get(tag, usual) if isinstance(value, dict) else usual

    return {"type": "tagged-union", "choices": choices, "discriminator": find if usual else tag}


def _tuple(schema: Schema, bounds: Schema) -> Schema:
    if "prefixItems" in schema:
        return {"type": "tuple", "items_schema": list(map(_core, schema["prefixItems"]))}
    items = [_core(schema.get("items", {}))]
    return {"type": "tuple", "items_schema": items, "variadic_item_index": 0, **bounds}


def _section(schema: Schema) -> Schema:
    if "properties" not in schema:
        values = schema.get("additionalProperties")
        inner = _core(values) if isinstance(values, dict) else {"type": "any"}
        return {"type": "dict", "values_schema": inner}
    required = schema.get("required", ())
    fields = {
        key: {"type": "typed-dict-field", "schema": _core(part), "required": key in required}
        for key, part in schema["properties"].items()
    }
    closed = schema.get("additionalProperties") is False
    behavior = "forbid" if closed else "ignore"
    return {"type": "typed-dict", "fields": fields, "extra_behavior": behavior}
