"""What goes into a comparison and comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from embedtrain.errors import one_line

Mode = Literal["query", "document", "plain"]
"""Whose prompt stands before a text; ``plain`` is none, with the length of documents."""
Vector = Float32[np.ndarray, " _"]
SHOWN = 48
"""Characters of a text that are printed."""


@dataclass(frozen=True)
class Probe:
    """A text that is encoded by both."""

    text: str
    mode: Mode
    kind: str = ""
    """What is hard about it; empty for one of the user's texts."""

    @property
    def shown(self) -> str:
        """The text as a line of a report."""
        line = one_line(self.text)
        line = line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."
        return f"{self.kind}: {line!r}" if self.kind else repr(line)


@dataclass(frozen=True)
class Bound:
    """How far a reader's vectors may be off: cosine distances."""

    largest: float
    mean: float | None = None
    """Where single texts may be off further."""
    overlap: float = 0.99
    """Share of the ten best documents that must be the same."""
    depends_on_batch: bool = False
    """Whether a vector is known to depend on the other texts of its batch (dynamic int8)."""


@runtime_checkable
class Reader(Protocol):
    """A program that makes vectors of texts."""

    name: str
    bound: Bound
    adds_prompts: bool
    """Whether it is told a mode and puts the prompt before the text itself; else it is sent both."""
    modes: tuple[Mode, ...]
    """Those that it knows."""

    def encode(self, texts: Sequence[str], mode: Mode) -> list[Vector] | None:
        """Return the vectors of texts that are encoded together; None where it refuses them."""
        ...

    def ids(self, texts: Sequence[str], mode: Mode) -> list[list[int]] | None:
        """Return the token ids of texts; None where it does not tell."""
        ...

    def memory(self) -> int:
        """Return the bytes that it takes; 0 where that is unknown."""
        ...


@dataclass(frozen=True)
class Reading:
    """What a reader made of all probes."""

    alone: Sequence[Vector | None]
    """Of each probe, encoded by itself; None where it was refused."""
    together: Sequence[Vector | None]
    """The same, encoded in batches of mixed lengths."""
    batches: Sequence[Sequence[int]]
    """Which probes were encoded together."""
    again: Sequence[Vector]
    """One text, encoded several times."""
    ids: Sequence[Sequence[int]] | None
    texts_per_second: float
    """Of all batches."""
    memory: int = 0


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    cause: str
    """As the report says it; ``unknown`` where no change of ours gives the reader's vectors."""
    probes: tuple[int, ...] = ()
    """Which texts it concerns; empty for all."""
    residual: float | None = None
    """What is left of the cosine distance if we change our encoding in that way."""
    excused: bool = False
    """Whether it concerns odd texts only."""


@dataclass
class Row:
    """A reader's line of the report."""

    reader: str
    failure: str = ""
    """Why it gave no vectors; empty where it did."""
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    """By the names of :data:`FIGURES`; those that do not apply are missing."""

    @property
    def verdict(self) -> Literal["ok", "ok except", "wrong", "did not start"]:
        """What it comes to."""
        if self.failure:
            return "did not start"
        if not self.findings:
            return "ok"
        return "ok except" if all(one.excused for one in self.findings) else "wrong"


FIGURES = {
    "texts": "Texts",
    "compared": "Compared",
    "largest": "Max",
    "mean": "Mean",
    "batch": "Batch",
    "same_ids": "Same ids",
    "overlap": "Top 10",
    "ndcg": "nDCG@10",
    "ndcg_lost": "Lost",
    "texts_per_second": "Texts/s",
    "memory": "MB",
}
"""Figures of a row and what they are called in the table."""
