"""What a writer of queries gives: a query and the text that should answer it, not yet believed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from embedtrain.data.documents.document import Chunk


@dataclass(frozen=True)
class Candidate:
    """A query for a chunk."""

    query: str
    positive: str
    """What should answer it: the chunk's text, without what became the query."""
    chunk: str
    """Id of the chunk."""
    document: str
    """Id of the chunk's document."""
    maker: str
    """Who wrote it: ``title``, ``heading``, ``crop``, ... or the language model's name."""
    type: str
    """What kind of query it is meant to be: ``question``, ``keywords``, ``statement``, ``long``, ``abstract``,
    ``misleading``, ``user``; rules have their maker's name."""
    slot: int = 0
    """Which of the chunk's queries."""
    finish: str = "stop"
    """Why the writer ended: ``stop``, ``length`` where it was cut, ``empty``, ``failed``, or a server's own word."""
    log_probability: float | None = None
    """Mean over the query's tokens, in nats, where the writer tells."""


@runtime_checkable
class Writer(Protocol):
    """Writes queries for chunks."""

    @property
    def name(self) -> str:
        """As the report calls it."""
        ...

    def write(self, chunks: Sequence[Chunk]) -> Iterator[Candidate]:
        """Yield candidates in the order of the chunks and of their slots, whatever was written first."""
        ...
