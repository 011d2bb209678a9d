"""Documents become chunks: at headings first, then paragraphs, sentences, words; no chunk overlaps another."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from embedtrain.data.documents.document import Chunk, Document

CountTokens = Callable[[str], int]

PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
SENTENCE = re.compile(
    r"(?<=[.!?\u2026])[\"'\u201d\u2019)\]]*\s+(?=[^\s\W_a-z])|(?<=[\u3002\uff01\uff1f])|\n"
)
SURELY_LONGER = 64
"""A text of so many characters a token is not counted: it is too long."""
SMALL_SECTION = 4
"""A section is joined with the next one if it has less than a chunk's length divided by this."""


@dataclass(frozen=True)
class Piece:
    """A part of a document, its end the beginning of the next one."""

    start: int
    end: int
    tokens: int


@dataclass(frozen=True)
class Section:
    """What stands between two headings, or a run of small ones."""

    start: int
    """Where the text begins, behind its heading."""
    end: int
    top: int
    """Which heading of level 1 it stands under."""
    path: tuple[str, ...]
    heading: int
    """Where its heading begins; ``start`` if it has none."""


def split(
    document: Document, length: int | None, count: CountTokens, *, join: bool = True
) -> list[Chunk]:
    """Split a document into chunks of at most ``length`` tokens, as ``count`` counts them.

    With ``join`` small sections are joined with the next one, but never over a heading of level 1; then the chunk's
    text has their headings, and its own heading is what they share. None for the length gives one chunk.
    """
    if length is None or (len(document.text) <= length and not document.headings):
        text = document.text.strip()
        start = document.text.index(text) if text else 0
        return [Chunk(document.id, document.id, document.title, "", text, start, start + len(text))]
    sections = _sections(document)
    found = [
        (section, piece)
        for section in (_joined(sections, document, length, count) if join else sections)
        for piece in _merged(_pieces(document, section, length, count), length)
    ]
    chunks = [_chunk(document, section, piece) for section, piece in found]
    chunks = [chunk for chunk in chunks if chunk.text]
    if len(chunks) == 1:
        return chunks
    return [replace(chunk, id=f"{document.id}#{n}") for n, chunk in enumerate(chunks, 1)]


def _chunk(document: Document, section: Section, piece: Piece) -> Chunk:
    text = document.text[piece.start : piece.end]
    start = piece.start + len(text) - len(text.lstrip())
    text = text.strip()
    heading = " > ".join(section.path)
    title, end = document.title, start + len(text)
    return Chunk(document.id, document.id, title, heading, text, start, end)


def _sections(document: Document) -> Iterator[Section]:
    """Yield what stands between headings, with the headings above it; the title is none of them."""
    path: list[tuple[int, str]] = []
    start, top, begin = 0, 0, 0
    marks = [(heading.start, heading.end, heading) for heading in document.headings]
    for heading_start, heading_end, heading in marks:
        if document.text[start:heading_start].strip():
            yield Section(start, heading_start, top, _names(path, document), begin)
        path = [*(one for one in path if one[0] < heading.level), (heading.level, heading.text)]
        top += heading.level == 1
        start, begin = heading_end, heading_start
    if document.text[start:].strip():
        yield Section(start, len(document.text), top, _names(path, document), begin)


def _names(path: list[tuple[int, str]], document: Document) -> tuple[str, ...]:
    names = tuple(" ".join(text.split()) for _, text in path)
    return names[1:] if names and names[0].casefold() == document.title.casefold() else names


def _joined(
    sections: Iterable[Section], document: Document, length: int, count: CountTokens
) -> Iterator[Section]:
    """Join small sections with their next one, as long as both fit into one chunk."""
    last: Section | None = None
    size = 0
    for section in sections:
        own = _count(document.text[section.heading : section.end], length, count)
        small = min(size, own) < length // SMALL_SECTION
        if last is not None and last.top == section.top and small and size + own <= length:
            path = _shared(last.path, section.path)
            last, size = replace(last, start=last.heading, end=section.end, path=path), size + own
            continue
        if last is not None:
            yield last
        last, size = section, own
    if last is not None:
        yield last


def _shared(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    same = 0
    while same < min(len(left), len(right)) and left[same] == right[same]:
        same += 1
    return left[:same]


def _pieces(
    document: Document, section: Section, length: int, count: CountTokens
) -> Iterator[Piece]:
    """Yield pieces of at most ``length`` tokens: paragraphs, or where these are longer their sentences or words."""
    inside = [one for one in document.whole if one[0] < section.end and one[1] > section.start]
    for start, end in _spans(document.text, section.start, section.end, PARAGRAPH, inside):
        tokens = _count(document.text[start:end], length, count)
        if tokens <= length:
            yield Piece(start, end, tokens)
        else:
            yield from _sentences(document.text, start, end, length, count)


def _sentences(text: str, start: int, end: int, length: int, count: CountTokens) -> Iterator[Piece]:
    for first, last in _spans(text, start, end, SENTENCE, ()):
        tokens = _count(text[first:last], length, count)
        if tokens <= length:
            yield Piece(first, last, tokens)
        else:
            yield from _words(text, first, last, length, count)


def _words(text: str, start: int, end: int, length: int, count: CountTokens) -> Iterator[Piece]:
    """Yield runs of words; a word of more characters than ``length`` is cut."""
    word = re.compile(rf"\s*\S{{1,{length}}}\s*")
    ends = [found.end() for found in word.finditer(text, start, end)]
    # A word is a token at least, so a run of more words would have to be halved in any case.
    for first in range(0, len(ends), length):
        yield from _halves(text, [start, *ends[first : first + length]], length, count)
        start = ends[min(first + length, len(ends)) - 1]


def _halves(text: str, cuts: list[int], length: int, count: CountTokens) -> Iterator[Piece]:
    """Halve a run of words between ``cuts`` until its parts fit; one word alone is cut in its middle."""
    start, end = cuts[0], cuts[-1]
    tokens = count(text[start:end])
    if tokens <= length or end - start <= 1:
        yield Piece(start, end, tokens)
        return
    middle = len(cuts) // 2
    inner = cuts if len(cuts) > 2 else [start, (start + end) // 2, end]
    middle = max(1, len(inner) // 2)
    yield from _halves(text, inner[: middle + 1], length, count)
    yield from _halves(text, inner[middle:], length, count)


def _spans(
    text: str, start: int, end: int, border: "re.Pattern[str]", whole: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield the spans between borders, each with the border behind it; those within ``whole`` divide nothing."""
    kept = list(whole)
    for found in border.finditer(text, start, end):
        while kept and kept[0][1] <= found.start():
            kept.pop(0)
        divides = not (kept and kept[0][0] < found.start())
        if divides and start < found.end() < end and text[start : found.start()].strip():
            yield start, found.end()
            start = found.end()
    if start < end:
        yield start, end


def _merged(pieces: Iterable[Piece], length: int) -> Iterator[Piece]:
    """Join pieces greedily while they fit."""
    last: Piece | None = None
    for piece in pieces:
        if last is not None and last.tokens + piece.tokens <= length:
            last = Piece(last.start, piece.end, last.tokens + piece.tokens)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _count(text: str, length: int, count: CountTokens) -> int:
    """Count tokens; of a text that is much too long only that."""
    return len(text) if len(text) > SURELY_LONGER * length else count(text)
