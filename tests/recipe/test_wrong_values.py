"""Each key of a recipe with values that do not belong there: refused in one line or read, never anything else."""

from copy import deepcopy
from pathlib import Path

import pytest

from embedtrain.errors import UserError
from embedtrain.recipe import keys
from embedtrain.recipe.keys import check_keys, load_keys
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows import pipeline

WRONG = (None, [], {"a": 1}, "x", [[{}]], 2**62, -(2**62), 0.5)
BASES = {
    "Recipe": {
        "description": "a test",
        "data": {"sources": [{"path": "pairs.jsonl"}]},
        "model": {"backbone": "org/name"},
        "trainer": {"steps": 10},
    },
    "PretrainRecipe": {
        "description": "a test",
        "data": {"sources": [{"path": "texts.txt"}]},
        "model": {"kind": "masked_autoencoder", "backbone": "org/name"},
        "objective": {"name": "retromae"},
        "trainer": {"epochs": 1},
    },
    "Pipeline": {"description": "a test", "stages": [{"name": "a", "train": {}}]},
}


def resolved(schema):
    return load_keys()[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def branches(schema):
    """The forms that a value may have, each as one schema; those of a tag with it."""
    schema = resolved(schema)
    found = [one for part in schema.get("anyOf", ()) for one in branches(part)]
    tagged = schema.get("discriminator", {})
    for tag, reference in tagged.get("mapping", {}).items():
        inner = dict(resolved({"$ref": reference}))
        found.append(inner | {"tag": {tagged["propertyName"]: tag}})
    return found or [schema]


def sample(schema):
    """A value that fits, as small as can be."""
    first = next((one for one in branches(schema) if one.get("type") != "null"), {})
    for known in ("default", "const"):
        if known in first:
            return first[known]
    if "enum" in first:
        return first["enum"][0]
    kind = first.get("type")
    if kind == "object":
        return filled(first)
    if kind == "array":
        items = first.get("prefixItems") or [first.get("items", {})] * first.get("minItems", 0)
        return [sample(one) for one in items]
    return {"integer": max(1, first.get("minimum", 1)), "number": 0.5, "boolean": True}.get(
        kind, "x"
    )


def filled(section):
    """The keys of a section that must be there."""
    known, required = section.get("properties", {}), section.get("required", ())
    return {key: sample(known[key]) for key in required} | section.get("tag", {})


def places(section, seen):
    """Yield a function for each key: given the section's content and a value, it puts the value there."""
    name = section.get("title", str(sorted(section.get("properties", ()))))
    if name in seen:
        return
    seen.add(name)
    for key, schema in section.get("properties", {}).items():
        yield key, lambda content, value, key=key: content.__setitem__(key, value)
        for branch in branches(schema):
            many = branch.get("type") == "array"
            for inner in branches(branch.get("items", {})) if many else [branch]:
                for deeper, put in places(inner, seen):

                    def put_inside(content, value, key=key, inner=inner, many=many, put=put):
                        part = filled(inner)
                        old = content.get(key)
                        if not inner.get("tag"):
                            old = old[0] if many and isinstance(old, list) and old else old
                            part |= old if isinstance(old, dict) else {}
                        put(part, value)
                        content[key] = [part] if many else part

                    yield f"{key}.{deeper}", put_inside


def walked():
    for form, base in BASES.items():
        for key, put in places(load_keys()[form], set()):
            yield form, base, key, put


def attempt(call, *arguments):
    """Call; return what is raised beyond a line for the user."""
    try:
        call(*arguments)
    except UserError as error:
        return None if len(str(error).splitlines()) == 1 else str(error)
    except Exception as error:
        return repr(error)[:300]
    return None


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.prove)])
def test_every_key_refuses_or_reads_what_does_not_belong_there(every, monkeypatch):
    """In the fast test each key meets every third of the values, the key after it others."""
    content = {}
    for module in (keys, pipeline):
        monkeypatch.setattr(module, "read_file", lambda _: (deepcopy(content), None))
    found, tried = [], set()
    for place, (form, base, key, put) in enumerate(walked()):
        tried.add((form, key))
        for value in WRONG[place % every :: every]:
            content = deepcopy(base)
            put(content, deepcopy(value))
            checks = [(check_keys, Path("my.yaml"))]
            whole = form != "Pipeline"
            checks.append((load_recipe, content) if whole else (pipeline.load_pipeline, Path("x")))
            for call, given in checks:
                raised = attempt(call, given)
                found += [(call.__name__, form, key, value, raised)] if raised else []
    assert len(tried) > 400
    assert not found, "\n".join(map(str, found[:60]))


def test_every_number_of_things_has_a_largest():
    def numbers(schema):
        inner = schema.values() if isinstance(schema, dict) else schema
        if isinstance(schema, dict) and schema.get("exclusiveMinimum", schema.get("minimum")) in (
            0,
            2,
        ):
            yield schema
        for one in inner:
            if isinstance(one, dict | list):
                yield from numbers(one)

    counts = [one for one in numbers(load_keys()) if one.get("type") == "integer"]
    counts = [one for one in counts if "exclusiveMinimum" in one or one["minimum"] == 2]
    assert len(counts) > 60
    assert [one for one in counts if "maximum" not in one] == []
    with pytest.raises(UserError, match=r"trainer\.batch_size"):
        load_recipe(BASES["Recipe"] | {"trainer": {"steps": 10, "batch_size": 2**62}})


@pytest.mark.parametrize("form", BASES)
def test_the_recipes_that_the_values_are_put_into_are_right(form, monkeypatch):
    monkeypatch.setattr(keys, "read_file", lambda _: (deepcopy(BASES[form]), None))
    if form != "Pipeline":
        assert check_keys(Path("my.yaml")) == form
        assert type(load_recipe(BASES[form])).__name__ == form
