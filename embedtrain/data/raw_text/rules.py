"""Rules that make a query of a text: titles, headings and crops, for ``embedtrain synth`` and sources with ``pairs``.

A rule takes the words of the query out of the text that should answer it: else training would only learn to compare
strings.
"""

import re

import numpy as np

from embedtrain.data.documents.document import Chunk
from embedtrain.data.words import WORD, longest_run, num_words, words_of

SHORT_HEADING = 3
"""Words of a heading that says too little without the title."""
DELETED = 0.1
"""Share of a crop's words that its query lacks."""
Span = tuple[int, int]


def heading_pair(chunk: Chunk) -> tuple[str, str] | None:
    """Return the headings that a chunk stands under, with the title if they say little alone, and its text.

    None if there is no heading, if it is a question, or if it says nothing.
    """
    names = chunk.heading.split(" > ") if chunk.heading else []
    if not names or names[-1].endswith("?"):
        return None
    query = " ".join(names)
    if num_words(query) < SHORT_HEADING and chunk.title:
        query = f"{chunk.title} {query}"
    return (query, without_longer(chunk.text, names[-1])) if num_words(query) > 1 else None


def word_spans(text: str) -> list[Span]:
    """Return where the words of a text begin and end, whatever stands between white space."""
    return [found.span() for found in re.finditer(r"\S+", text)]


def draw_run(spans: list[Span], fewest: int, most: int, random: np.random.Generator) -> list[Span]:
    """Draw successive words: first how many, ``fewest`` to ``most``, then where they begin."""
    length = int(random.integers(fewest, most + 1))
    begin = int(random.integers(len(spans) - length + 1))
    return spans[begin : begin + length]


def thinned(text: str, spans: list[Span], random: np.random.Generator) -> str:
    """Return words of a text, each left out with a probability of :data:`DELETED`."""
    words = [text[start:end] for start, end in spans]
    return " ".join(word for word in words if random.random() >= DELETED)


def key_of(text: str) -> tuple[str, ...]:
    """Return what two spellings of the same words share."""
    return words_of(text)


def begins_with(text: str, query: str) -> bool:
    """Whether a text begins with the words of a query, whatever their case and marks."""
    words = words_of(query)
    return bool(words) and words_of(text[: 4 * len(query) + 64])[: len(words)] == words


def holds(query: str, title: str) -> bool:
    """Whether the words of a title stand in a query, in a row."""
    words, asked = words_of(title), words_of(query)
    return bool(words) and longest_run(words, asked) == len(words)


def without(text: str, phrase: str) -> str:
    """Return a text without a phrase, wherever it stands, whatever its case and marks."""
    words = [re.escape(word) for word in WORD.findall(phrase)]
    if not words:
        return text
    joined = r"[\W_]+".join(words)
    found = re.compile(rf"(?<!\w){joined}(?!\w)[ \t]*[.:?!]?[ \t]*", re.IGNORECASE)
    return found.sub("", text).strip()


def without_longer(text: str, phrase: str) -> str:
    """Take a phrase out unless it is so short that sentences would lose their words."""
    return without(text, phrase) if num_words(phrase) >= SHORT_HEADING else text
