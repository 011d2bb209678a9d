"""What readers of markup give: blocks of text one after the other, which become a document."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from embedtrain.data.documents.document import Document, Heading, Link

MOST_PAGES = 0.3
"""A line that stands on a larger share of the pages is boilerplate."""
FEWEST_PAGES = 4
"""Of fewer pages nobody knows."""
UNPRINTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
ENDS_OF_LINES = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, a list, or code."""

    text: str
    level: int = 0
    """Of a heading; 0 is none."""
    whole: bool = False
    """Whether blank lines do not divide it."""


@dataclass(frozen=True)
class Page:
    """A file of markup, read but not yet cleaned of what all files of the folder repeat."""

    id: str
    title: str
    blocks: Sequence[Block]
    links: tuple[Link, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def normalise(text: str) -> str:
    r"""Return text with newlines ``\n``, NFC, without control characters, blanks at line ends and long gaps."""
    text = UNPRINTED.sub("", ENDS_OF_LINES.sub("\n", text))
    text = unicodedata.normalize("NFC", TRAILING.sub("", text))
    return BLANK_LINES.sub("\n\n", text).strip("\n").rstrip()


def assemble(page: Page) -> Document:
    """Join the blocks of a page by blank lines."""
    texts: list[str] = []
    headings: list[Heading] = []
    whole: list[tuple[int, int]] = []
    start = 0
    for block in page.blocks:
        text = normalise(block.text) if block.whole else normalise(block.text).strip()
        if not text:
            continue
        end = start + len(text)
        if block.level:
            headings.append(Heading(block.level, text, start, end))
        if block.whole:
            whole.append((start, end))
        texts.append(text)
        start = end + 2
    return Document(
        id=page.id,
        title=" ".join(normalise(page.title).split()),
        text="\n\n".join(texts),
        metadata=page.metadata,
        headings=tuple(headings),
        whole=tuple(whole),
        links=page.links,
    )


def frequent(lines: Iterable[Iterable[str]], num_pages: int) -> set[str]:
    """Return the lines that stand on more than :data:`MOST_PAGES` of the pages."""
    if num_pages < FEWEST_PAGES:
        return set()
    counts = Counter(chain.from_iterable(map(set, lines)))
    return {line for line, count in counts.items() if count > MOST_PAGES * num_pages}


def without_boilerplate(pages: Sequence[Page]) -> tuple[list[Page], int]:
    """Take out lines that stand on many pages: menus, notices, footers.

    Headings of the same words, such as "Example", stay. Returns the pages and the number of different lines.
    """
    lines = ({line for block in page.blocks for line in _lines(block)} for page in pages)
    boilerplate = frequent(lines, len(pages))
    if not boilerplate:
        return list(pages), 0

    def cleaned(block: Block) -> Block:
        if block.level or block.whole:
            return block
        kept = [line for line in block.text.split("\n") if line.strip() not in boilerplate]
        return Block("\n".join(kept))

    cut = [
        Page(page.id, page.title, [cleaned(block) for block in page.blocks], page.links, page.metadata)
        for page in pages
    ]  # fmt: skip
    return cut, len(boilerplate)


def _lines(block: Block) -> list[str]:
    if block.level or block.whole:
        return []
    return [line.strip() for line in block.text.split("\n") if line.strip()]
