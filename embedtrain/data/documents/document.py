"""A document of a corpus, and a chunk of one: what queries are written for, and what is searched."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heading:
    """A line of a document that names what follows."""

    level: int
    """1 is the outermost."""
    text: str
    start: int
    end: int
    """Where the line stands in the document's text, in characters."""


@dataclass(frozen=True)
class Link:
    """Words of a document that lead to another one of the same folder."""

    text: str
    target: str
    """Id of the other document, which need not exist."""


@dataclass(frozen=True)
class Document:
    """A file, a page or a row of a corpus.

    ``id`` is the path inside the folder with forward slashes, or the row's own id: the same on every machine.
    """

    id: str
    title: str
    text: str
    """Without markup; newlines are ``\\n``, characters NFC."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    headings: tuple[Heading, ...] = ()
    """In the order of the text, whose lines they are."""
    whole: tuple[tuple[int, int], ...] = ()
    """Where blocks begin and end that blank lines do not divide, such as code."""
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """A part of a document that is encoded as one text.

    ``id`` is the document's, with ``#`` and the chunk's number where a document has several.
    """

    id: str
    document: str
    """Id of the document."""
    title: str
    """Title of the document; empty if it has none."""
    heading: str
    """Headings that it stands under, outermost first, joined by " > "; empty if there are none."""
    text: str
    """Without title and the headings that it stands under."""
    start: int
    end: int
    """Where it stands in the document's text, in characters."""
    part: int = 0
    """Which part of the document is split from the others like a document; 0 is the whole."""

    @property
    def unit(self) -> str:
        """What is held out, or not, as one: the document, or a part of it."""
        return f"{self.document}@{self.part}" if self.part else self.document
