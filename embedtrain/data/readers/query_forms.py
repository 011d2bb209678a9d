"""Several forms of a query: hypothetical documents, rewrites, other wordings, beside ``queries.jsonl``.

A row of ``query_forms.jsonl`` is ``{"_id": "q1", "form": "hyde-0", "kind": "document", "text": "...", "weight": 1.0}``.
``kind`` says what the text is read as, ``query`` if it is left out. The query itself is the form ``original`` with the
weight 1, unless a row of that name gives it another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedtrain.data.readers.text_lines import read_objects
from embedtrain.errors import UserError

FILE, ORIGINAL = "query_forms.jsonl", "original"


@dataclass(frozen=True)
class Form:
    """One way to ask a query."""

    name: str
    text: str
    is_document: bool = False
    """Whether it is what the answer might say, and read as a document."""
    weight: float = 1.0


def read_query_forms(
    path: Path, query_ids: Sequence[str], queries: Sequence[str]
) -> list[list[Form]]:
    """Return the forms of each query that weigh more than 0, the query itself first; equal ones are added up.

    Rows of other queries are passed over: a file may serve several splits.

    Raises:
        UserError: If a row cannot be used, or none is of these queries.
    """
    forms = {
        query: {ORIGINAL: Form(ORIGINAL, text)}
        for query, text in zip(query_ids, queries, strict=True)
    }
    seen: set[tuple[str, str]] = set()
    for place, row in read_objects(path):
        query, form = str(row.get("_id")), _form(place, row)
        if query not in forms:
            continue
        if (query, form.name) in seen:
            raise UserError(place, "gives a query two forms of one name", got=form.name)
        seen.add((query, form.name))
        if form.name == ORIGINAL:
            form = replace(forms[query][ORIGINAL], weight=form.weight)
        forms[query][form.name] = form
    if not seen:
        cure = "Give rows whose _id is that of a query"
        raise UserError(path, "holds forms of none of the queries", cure=cure)
    return [_distinct(query, list(own.values()), path) for query, own in forms.items()]


def _form(place: str, row: dict[str, object]) -> Form:
    name, text, kind = row.get("form"), row.get("text"), row.get("kind", "query")
    weight = row.get("weight", 1.0)
    if not isinstance(name, str) or not name:
        raise UserError(place, "does not name its form", got=name, cure="Add form: rewrite-0")
    if name != ORIGINAL and (not isinstance(text, str) or not text.strip()):
        raise UserError(place, "has no text", got=text, cure="Remove the row")
    if kind not in ("query", "document"):
        raise UserError(place, "has an unknown kind", got=kind, cure="Use query or document")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not math.isfinite(float(str(weight))) or float(str(weight)) < 0:
        raise UserError(place, "has a weight that is no number of 0 or more", got=weight)
    return Form(name, str(text), kind == "document", float(str(weight)))


def _distinct(query: str, forms: Sequence[Form], path: Path) -> list[Form]:
    """Leave out what weighs nothing, and give forms that say the same the weight of all."""
    found: dict[tuple[str, bool], Form] = {}
    for form in forms:
        key = form.text, form.is_document
        weight = form.weight + (found[key].weight if key in found else 0.0)
        if form.weight > 0:
            found[key] = replace(found.get(key, form), weight=weight)
    if not found:
        raise UserError(f"{path} query {query}", "has no form that weighs more than 0")
    return list(found.values())
