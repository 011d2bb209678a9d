"""Rows, texts and judgments, however a Python session holds them, checked while they are at hand."""

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

from embedtrain.data.readers.rows import join_title
from embedtrain.errors import UserError

Judgment = tuple[str, str, int]
"""Query id, document id, grade."""


def rows_of(given: Any, place: str) -> Iterator[Mapping[str, object]]:  # noqa: ANN401 - of libraries not imported
    """Yield the rows of whatever holds rows; a text alone is a row of it.

    Raises:
        UserError: If it holds no rows, or one is no dict.
    """
    library, kind = type(given).__module__.partition(".")[0], type(given).__name__
    if (library, kind) == ("pandas", "DataFrame"):
        given = given.to_dict(orient="records")
    elif (library, kind) == ("polars", "DataFrame"):
        given = given.iter_rows(named=True)
    elif (library, kind) == ("pyarrow", "Table"):
        given = given.to_pylist()
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        cure = "Give a list of dicts, a generator of them, one split of a data set, or a frame"
        raise UserError(place, "is nothing that holds rows", got=type(given).__name__, cure=cure)
    for number, row in enumerate(given):
        if not isinstance(row, str | Mapping):
            cure = "Give a dict for each row"
            raise UserError(f"{place} row {number}", "is no dict", got=row, cure=cure)
        yield {"text": row} if isinstance(row, str) else row


def entries_of(given: Any, place: str, *, may_be_empty: bool) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - of libraries not imported
    """Return id to row, whose ``_id`` and ``text`` are texts; of ids that are not given, the row's number.

    Raises:
        UserError: If a row has no text, its text is empty and may not be, or an id occurs twice.
    """
    if isinstance(given, Mapping):
        named: Iterable[tuple[str, Mapping[str, Any]]] = (
            (f"{place} {key}", {"_id": key, **(one if isinstance(one, Mapping) else {"text": one})})
            for key, one in given.items()
        )
    else:
        named = ((f"{place} row {number}", row) for number, row in enumerate(rows_of(given, place)))
    entries: dict[str, dict[str, Any]] = {}
    for where, row in named:
        name = _id_of(row.get("_id", row.get("id", len(entries))), f"{where} _id")
        if name in entries:
            raise UserError(where, "has the id of an earlier one", got=name, cure="Make ids unique")
        if "text" not in row:
            raise UserError(where, "has no column 'text'", got=list(row), cure="Add it")
        text = row["text"]
        if not isinstance(text, str):
            raise UserError(f"{where} text", "must be a text", got=text, cure="Give a text")
        if not may_be_empty and not text.strip():
            raise UserError(f"{where} text", "is empty", got=text, cure="Give the text")
        values = {key: value for key, value in row.items() if key not in ("_id", "id")}
        entries[name] = {"_id": name, **values}
    return entries


def judgments_of(
    given: Any,  # noqa: ANN401 - of libraries not imported
    place: str,
    queries: Mapping[str, Any],
    documents: Mapping[str, Mapping[str, Any]],
) -> list[Judgment]:
    """Return the judgments of the entries of a task.

    Raises:
        UserError: If one names what is not there, is none or stands there twice, or a query has no positive.
    """
    found: dict[tuple[str, str], int] = {}
    best: dict[str, tuple[str, int]] = {}
    for where, query, document, grade in _judgments(given, place):
        for name, kind, known in ((query, "query", queries), (document, "document", documents)):
            if name not in known:
                cure = "Add it, or drop the judgment"
                raise UserError(where, f"names a {kind} that is not given", got=name, cure=cure)
        entry = documents[document]
        if not join_title(entry.get("title"), entry["text"]):
            cure = "Give its text, or drop the judgment"
            raise UserError(where, "names a document without text", got=document, cure=cure)
        if (query, document) in found:
            cure = "Keep one of the two"
            raise UserError(where, "judges a document a second time", got=document, cure=cure)
        found[query, document] = grade
        if grade > best.get(query, (where, 0))[1] or query not in best:
            best[query] = (where, grade)
    for where, grade in best.values():
        if grade < 1:
            cure = "Grade a document 1 or more, or drop the query"
            raise UserError(
                where, "is of a query without a relevant document", got=grade, cure=cure
            )
    if not found:
        raise UserError(place, "judges nothing", got=given, cure="Give a query's documents")
    return [(query, document, grade) for (query, document), grade in found.items()]


def _judgments(given: Any, place: str) -> Iterator[tuple[str, str, str, int]]:  # noqa: ANN401 - see judgments_of
    """Yield (place, query id, document id, grade)."""
    if not isinstance(given, Mapping):
        for number, row in enumerate(rows_of(given, place)):
            where = f"{place} row {number}"
            missing = [name for name in ("query-id", "corpus-id") if name not in row]
            if missing:
                raise UserError(where, f"lacks {missing[0]}", got=row, cure="Add it")
            ids = [_id_of(row[name], f"{where} {name}") for name in ("query-id", "corpus-id")]
            yield where, ids[0], ids[1], _grade(row.get("score", 1), where)
        return
    for query, judged in given.items():
        where = f"{place} of query {query}"
        if isinstance(judged, str | bytes) or not isinstance(judged, Iterable):
            cure = "Give a list of the ids of its documents, or a dict of ids to grades"
            raise UserError(where, "are no ids", got=judged, cure=cure)
        grades = judged if isinstance(judged, Mapping) else dict.fromkeys(judged, 1)
        if not grades:
            raise UserError(where, "are none", got=judged, cure="Name a document or drop the query")
        for document, grade in grades.items():
            yield where, _id_of(query, where), _id_of(document, where), _grade(grade, where)


def _id_of(value: object, place: str) -> str:
    """Return an id as a text that fits into a line of the qrels."""
    if isinstance(value, bool) or not isinstance(value, str | Integral):
        cure = "Give a text or a whole number as id"
        raise UserError(place, "must be a text or a whole number", got=value, cure=cure)
    text = str(value)
    if not text or any(sign in text for sign in "\t\r\n"):
        raise UserError(place, "is empty or has a tab or line break", got=text, cure="Rename it")
    return text


def _grade(value: Any, place: str) -> int:  # noqa: ANN401 - a number of any library
    whole = isinstance(value, Integral | float) and float(value).is_integer()
    if not whole or isinstance(value, bool):
        cure = "Give 1 or more for relevant, 0 for not"
        raise UserError(place, "must have a whole number as its grade", got=value, cure=cure)
    return int(value)
