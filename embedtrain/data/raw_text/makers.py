"""Rows of one document: neighbours, positions, depths, crops, its title, its headings, mentions."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from embedtrain.data.documents.document import Chunk, Document
from embedtrain.data.documents.splitter import split
from embedtrain.data.documents.underlined import underlined_headings
from embedtrain.data.draw import generator
from embedtrain.data.examples import Example, SourceConfig
from embedtrain.data.raw_text.mentions import Ontology, mentions
from embedtrain.data.raw_text.rules import (
    begins_with,
    draw_run,
    heading_pair,
    thinned,
    without_longer,
    word_spans,
)
from embedtrain.data.raw_text.units import units_of
from embedtrain.data.words import WORD, num_words

NEAREST = 64
"""Units on either side that are no negatives of a unit: those of a whole book would take their square in memory."""
PLACES = 5
"""Parts of a document whose units have one class, and depths that are told apart; a shorter document has no parts."""
CROP_WORDS = 24
CROP_RATIOS = (0.05, 0.5)
"""Shortest and longest crop, as a share of the document's words."""
SHORTEST_CROP = 5
SECTION_WORDS = 200
"""Longest text of a heading; longer sections give several."""
FEWEST_WORDS = 5
"""Of a text that should answer a title or a heading."""


def make_rows(
    document: Document, config: SourceConfig, ontology: Ontology | None = None
) -> list[Example]:
    """Return the rows that ``config.pairs`` makes of a document; the same at every call.

    ``ontology`` holds the names of ``mentions``.

    Source: of neighbours Logeswaran and Lee (2018), https://arxiv.org/abs/1803.02893; of crops Izacard et al. (2021),
    https://arxiv.org/abs/2112.09118; of positions and depths Chen et al. (2019), https://arxiv.org/abs/1909.00142.
    """
    makers: dict[str, Callable[[Document, SourceConfig], list[Example]]] = {
        "neighbours": _neighbours,
        "crops": _crops,
        "title": _title,
        "headings": _headings,
        "position": _positions,
        "depth": _depths,
    }
    if ontology is not None:
        makers["mentions"] = partial(mentions, ontology=ontology)
    return drawn(makers[str(config.pairs)](document, config), config, document.id)


def drawn(rows: list[Example], config: SourceConfig, name: str) -> list[Example]:
    """Return so many of a document's rows as ``config.draws`` allows, in their order."""
    if config.draws is None or len(rows) <= config.draws:
        return rows
    random = generator(config.draw_seed, name, "draws")
    kept = np.sort(random.choice(len(rows), size=config.draws, replace=False))
    return [rows[place] for place in kept]


def _neighbours(document: Document, config: SourceConfig) -> list[Example]:
    """Each unit with those within the window as its positives."""
    units = units_of(document.text, config.unit, config.min_words)
    found = []
    for place, unit in enumerate(units):
        near = _around(units, place, config.window)
        if not near:
            continue
        # The unit itself stands in the batch as the positive of its neighbours, and is no negative of its own.
        wide = config.window if config.same_document == "negative" else max(config.window, NEAREST)
        others = (unit, *(one for one in _around(units, place, wide) if one not in near))
        found.append(Example(unit, near, not_negatives=others))
    return found


def _around(units: list[str], place: int, width: int) -> tuple[str, ...]:
    """Return the different units within a distance, without those that repeat the one in the middle."""
    near = (*units[max(0, place - width) : place], *units[place + 1 : place + 1 + width])
    return tuple(dict.fromkeys(unit for unit in near if unit != units[place]))


def _positions(document: Document, config: SourceConfig) -> list[Example]:
    """Each unit with its place in the document as its score: of :data:`PLACES` parts the one that it stands in."""
    units = units_of(document.text, config.unit, config.min_words)
    if len(units) < PLACES:
        return []
    return [
        Example(unit, (unit,), scores=(float(PLACES * place // len(units)),))
        for place, unit in enumerate(units)
    ]


def _depths(document: Document, config: SourceConfig) -> list[Example]:
    """Each unit of a document with headings, with the number of those above it as its score."""
    chunks = _under_headings(document)
    if not any(chunk.heading for chunk in chunks):
        return []
    return [
        Example(unit, (unit,), scores=(float(min(_num_headings(chunk), PLACES - 1)),))
        for chunk in chunks
        for unit in units_of(chunk.text, config.unit, config.min_words)
    ]


def _num_headings(chunk: Chunk) -> int:
    return len(chunk.heading.split(" > ")) if chunk.heading else 0


def _under_headings(document: Document) -> list[Chunk]:
    """Return the text of each section, with the headings above it."""
    headings = document.headings or underlined_headings(document.text)
    return split(replace(document, headings=headings), SECTION_WORDS, num_words, join=False)


def _crops(document: Document, config: SourceConfig) -> list[Example]:
    """Pairs of spans, drawn each for itself: they may overlap, and the query lacks some of its words."""
    spans = word_spans(document.text)
    if len(spans) < (config.min_words or CROP_WORDS):
        return []
    fewest, most = (max(SHORTEST_CROP, round(ratio * len(spans))) for ratio in CROP_RATIOS)
    most = min(most, len(spans))
    fewest = min(fewest, most)
    pairs: list[tuple[str, str]] = []
    for number in range(config.draws or 1):
        random = generator(config.draw_seed, document.id, "crops", number)
        query = thinned(document.text, draw_run(spans, fewest, most, random), random)
        run = draw_run(spans, fewest, most, random)
        if query:
            pairs.append((query, document.text[run[0][0] : run[-1][1]]))
    others = tuple(text for _, text in pairs) if config.same_document == "ignore" else ()
    return [
        Example(query, (text,), not_negatives=tuple(one for one in others if one != text))
        for query, text in pairs
    ]


def _title(document: Document, config: SourceConfig) -> list[Example]:  # noqa: ARG001 - as all makers
    """The title, for the text without it."""
    body = _behind(without_longer(document.text, document.title), document.title)
    if not document.title or num_words(body) < FEWEST_WORDS:
        return []
    return [Example(document.title, (body,))]


def _behind(text: str, title: str) -> str:
    """Return what follows a title that a text begins with, or all of it."""
    if not begins_with(text, title):
        return text.strip()
    *_, last = (found for found, _ in zip(WORD.finditer(text), WORD.findall(title), strict=False))
    return text[last.end() :].lstrip(" \t\n.:-=~*#")


def _headings(document: Document, config: SourceConfig) -> list[Example]:  # noqa: ARG001 - as all makers
    """The headings over each section, for its text."""
    pairs = [pair for chunk in _under_headings(document) if (pair := heading_pair(chunk))]
    return [
        Example(query, (text,))
        for query, text in pairs
        if num_words(text) >= FEWEST_WORDS and not begins_with(text, query)
    ]
