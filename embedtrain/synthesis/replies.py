"""From what a model wrote to queries, and why not where that fails.

Of a text the first line that is not empty is the query. Of JSON: a code fence around it and commas before a closing
bracket are passed over, words around it too; an array in the place of the object, and several objects, are read alike.
Queries belong to the slots that they name, never to those at their place; where one slot alone was asked for, a query
that names none is its own. Nothing that can be read (an empty text, a page of HTML, words) is a problem, told in words.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from embedtrain.encoding.language.chat import Reply

THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
OPEN_THOUGHT = re.compile(r"<think>.*", re.DOTALL | re.IGNORECASE)
COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')
QUOTES = (('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u201e", "\u201c"), ("\u00ab", "\u00bb"))
TEXT_NAMES = ("text", "query", "question")
EMPTY, LENGTH, STOP = "empty", "length", "stop"


@dataclass(frozen=True)
class Queries:
    """Queries by the number of their slot, from 1, and what was wrong if there is none."""

    by_slot: dict[int, str] = field(default_factory=dict)
    problem: str = ""


def spoken(text: str) -> tuple[str, bool]:
    """Return a text without what the model thought first, and whether it was cut while it thought."""
    said = THOUGHT.sub("", text)
    return OPEN_THOUGHT.sub("", said).strip(), bool(OPEN_THOUGHT.search(said))


def first_line(reply: Reply) -> tuple[str, str]:
    """Return the query of a text, and how it ended: a line that another one follows is whole."""
    text, cut = spoken(reply.text)
    line, _, rest = text.partition("\n")
    query = _unquoted(line.strip())
    if not query:
        return "", LENGTH if cut else EMPTY
    whole = bool(rest.strip()) or reply.text.rstrip(" ").endswith("\n")
    return query, STOP if whole and reply.finish == LENGTH else reply.finish


def json_queries(reply: Reply, wanted: int) -> Queries:
    """Return the queries of an answer in JSON.

    Args:
        reply: The answer.
        wanted: Number of slots.
    """
    text, _ = spoken(reply.text)
    if not text:
        return Queries(problem="an empty answer")
    found: dict[int, str] = {}
    read = nameless = False
    for entry in _entries(text):
        read = True
        slot, query = _slot_and_text(entry)
        if slot is None and wanted == 1:
            slot = 1
        nameless |= slot is None and bool(query)
        if slot is not None and 1 <= slot <= wanted and query:
            found.setdefault(slot, query)
    if found:
        return Queries(found)
    if nameless:
        return Queries(problem="queries that name no slot")
    return Queries(problem="JSON without a query" if read else "no JSON")


@dataclass(frozen=True)
class Answered:
    """A task about several texts, its answer, and the numbers of the texts that the answer needs, from 1."""

    query: str
    answer: str
    texts: tuple[int, ...]


def json_tasks(reply: Reply, wanted: int) -> tuple[dict[int, Answered], str]:
    """Return the tasks of an answer in JSON by the number of their slot, from 1, and what was wrong if there is none.

    Args:
        reply: The answer.
        wanted: Number of slots.
    """
    found: dict[int, Answered] = {}
    for entry in _entries(spoken(reply.text)[0]):
        slot, query = _slot_and_text(entry)
        if slot is not None and 1 <= slot <= wanted and query:
            said = entry.get("answer")
            answer = _joined(str(said)) if isinstance(said, str | int | float) else ""
            found.setdefault(slot, Answered(query, answer, _numbers(entry.get("texts"))))
    return found, "" if found else "no task in JSON"


def _numbers(said: Any) -> tuple[int, ...]:  # noqa: ANN401 - a model wrote it
    """Return the whole numbers of a list, or of a number alone."""
    given = said if isinstance(said, list) else [said]
    numbers = [int(str(one)) for one in given if str(one).strip().isdecimal()]
    return tuple(dict.fromkeys(numbers))


def _entries(text: str) -> Iterator[Any]:
    """Yield what may be a query, of each array or object in a text; of a cut one, of its whole parts."""
    cleaned = COMMA.sub(lambda match: match[1] or "", text)
    decoder, place = json.JSONDecoder(), 0
    while (start := _next_bracket(cleaned, place)) is not None:
        try:
            content, place = decoder.raw_decode(cleaned, start)
        except ValueError:
            place = start + 1
            continue
        except RecursionError:  # and so would all that it holds be
            return
        yield from _flat(content)


def _next_bracket(text: str, place: int) -> int | None:
    found = re.compile(r"[{\[]").search(text, place)
    return None if found is None else found.start()


def _flat(content: Any) -> Iterator[Any]:  # noqa: ANN401 - a model wrote it
    """Yield the entries of a list, or of the list in an object, or the object."""
    if isinstance(content, list):
        yield from content
    elif isinstance(content, dict) and isinstance(content.get("queries"), list):
        yield from content["queries"]
    else:
        yield content


def _slot_and_text(entry: Any) -> tuple[int | None, str]:  # noqa: ANN401 - a model wrote it
    if isinstance(entry, str):
        return None, _joined(entry)
    if not isinstance(entry, dict):
        return None, ""
    text = next((entry[name] for name in TEXT_NAMES if isinstance(entry.get(name), str)), "")
    said = entry.get("slot")
    is_number = isinstance(said, int | str) and str(said).strip().isdecimal()
    return int(str(said)) if is_number else None, _joined(text)


def _joined(text: str) -> str:
    return _unquoted(" ".join(text.split()))


def _unquoted(text: str) -> str:
    for first, last in QUOTES:
        if len(text) > 1 and text[0] == first and text[-1] == last:
            return text[1:-1].strip()
    return text
