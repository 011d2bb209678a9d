"""Windows over a document that is longer than a model reads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Tokens of a document that are read together, and those of them whose states are kept."""

    start: int
    stop: int
    first: int
    """The first token whose state is kept; the last window's keeps all to its stop."""
    end: int


def windows(length: int, room: int, overlap: int) -> list[Window]:
    """Cover ``length`` tokens by windows of ``room`` that share at least ``overlap``; all kept once."""
    if length <= room:
        return [Window(0, length, 0, length)]
    starts = [*range(0, length - room, room - overlap), length - room]
    stops = [start + room for start in starts]
    cuts = [(start + stop) // 2 for start, stop in zip(starts[1:], stops, strict=False)]
    return [
        Window(*places) for places in zip(starts, stops, [0, *cuts], [*cuts, length], strict=True)
    ]
