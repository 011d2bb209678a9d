"""What a collection of an engine holds, written into the collection itself so that no other model is mixed in."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from embedtrain.errors import UserError
from embedtrain.models.backbone.folder_files import checked
from embedtrain.retrieval.indexes import Kind
from embedtrain.section import Count, Section
from embedtrain.types import Similarity

Store = Literal["float32", "float16", "int8", "binary"]
Abilities = Mapping[Kind, Mapping[Store, int]]
"""What an engine can hold: the most dimensions of each kind of vector, by how numbers are stored."""


class VectorField(Section):
    """The vectors that one model gave the documents of a collection."""

    name: str
    """Of the column, field or named vector in the engine."""
    kind: Kind
    """One vector per text, several, or weights of words."""
    dim: Count
    similarity: Similarity
    """Of the model. Cosine means that vectors have length 1, so every engine compares inner products."""
    model: str
    """Hash of the weights, the tokenizer and the contract."""
    model_name: str
    """Where the model came from when it was loaded."""
    contract: dict[str, Any]
    """Prompts, lengths and pooling: how a query has to be encoded."""
    store: Store = "float32"
    """How the engine keeps the numbers."""


class Layout(Section):
    """Everything that a collection says about itself."""

    fields: tuple[VectorField, ...]
    texts: bool = True
    """Whether the texts lie beside their vectors."""
    is_finished: bool = False
    """Whether the last loading came to its end."""

    def field_of(self, model: str, place: str, name: str) -> VectorField:
        """Return the field whose vectors a model made, by the model's hash.

        Raises:
            UserError: If there is none: a query of another model would be answered by chance.
        """
        self.refuse_foreign(place)
        for field in self.fields:
            if field.model == model:
                return field
        held = ", ".join(f"{field.name} of {field.model_name}" for field in self.fields)
        raise UserError(
            place, f"holds vectors of other weights, prompts or lengths ({held})", got=name,
            cure="Search with the model that was loaded, or load this one into another collection",
        )  # fmt: skip

    def refuse_foreign(self, place: str) -> None:
        """Refuse a collection that says nothing about itself.

        Raises:
            UserError: If it was made by something else.
        """
        if not self.fields:
            raise UserError(
                place,
                "is there and was not filled by `embedtrain load`",
                cure="Name another collection",
            )


def read_layout(place: object, content: object) -> Layout:
    """Read what a collection says about itself: JSON, or the text of it. Words of somebody else say nothing.

    Raises:
        UserError: If it is no layout.
    """
    if isinstance(content, str | bytes):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            content = None
    return Layout(fields=()) if content is None else checked(place, Layout, content)


def refuse_other(place: str, held: Layout, wanted: Layout) -> None:
    """Refuse to write into a collection that was made for something else.

    Raises:
        UserError: If a model, a dimension or a way of storing differs.
    """
    held.refuse_foreign(place)
    cure = "Name another collection, or remove this one"
    names = [sorted(field.name for field in one.fields) for one in (held, wanted)]
    if names[0] != names[1]:
        raise UserError(
            place, f"holds the vectors {', '.join(names[0])}", got=", ".join(names[1]), cure=cure
        )
    there = {field.name: field for field in held.fields}
    for field in wanted.fields:
        old = there[field.name]
        for what, one, other in (
            (f"dimension {old.dim}", old.dim, field.dim),
            (f"store {old.store}", old.store, field.store),
            (f"the model {old.model_name}, of other weights or contract", old.model, field.model),
        ):
            if one != other:
                got = field.model_name if one == old.model else other
                raise UserError(f"{place} {field.name}", f"has {what}", got=got, cure=cure)
    if held.texts != wanted.texts:
        has = "texts" if held.texts else "no texts"
        raise UserError(place, f"was loaded with {has}", cure="Do so again, or remove it")


def refuse_beyond(place: str, abilities: Abilities, layout: Layout) -> None:
    """Refuse what an engine has no type for, before anything is encoded.

    Raises:
        UserError: If it is so.
    """
    for field in layout.fields:
        stores = abilities.get(field.kind)
        if stores is None:
            raise UserError(
                place, f"holds {' and '.join(abilities)} vectors", got=field.kind,
                cure="Choose another engine",
            )  # fmt: skip
        if field.store not in stores:
            cure = f"Choose --store from {', '.join(stores)}"
            raise UserError(place, f"cannot store {field.kind} so", got=field.store, cure=cure)
        if field.dim > stores[field.store]:
            raise UserError(
                place, f"holds at most {stores[field.store]:,} dimensions of {field.kind} {field.store}",
                got=field.dim, cure="Take another --store or engine, or cut the vectors with `embedtrain export --dim`",
            )  # fmt: skip
