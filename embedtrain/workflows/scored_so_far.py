"""What an unfinished scoring has done: its rows, and beside them what they come from and what they took."""

import json
from pathlib import Path
from typing import Any

from embedtrain.files import write_file

Tally = dict[str, Any]
"""Numbers by name, or tallies of their own."""


def added(first: Tally, second: Tally) -> Tally:
    """Return the sums of two tallies, of which the second has all names."""
    return {
        name: added(first.get(name, {}), value)
        if isinstance(value, dict)
        else round(first.get(name, 0) + value, 6)
        for name, value in second.items()
    }


def mark_done(mark: Path, fingerprint: str, tally: Tally) -> None:
    """Say what the rows so far come from, and what they took."""
    write_file(mark, f"{fingerprint}\n{json.dumps(tally)}")


def begin(partial: Path, mark: Path, fingerprint: str, block: int) -> tuple[int, Tally]:
    """Return how many rows are done and what they took; what a kill left behind the last whole block is cut off.

    Blocks are whole because the bits of a score may depend on the pairs it was computed with.
    """
    if partial.is_file():
        found, tally = _read(mark)
        if found == fingerprint:
            with partial.open("rb") as file:
                offsets, size = [0], 0
                for line in file:
                    size += len(line)
                    if line.endswith(b"\n"):
                        offsets.append(size)
            whole = (len(offsets) - 1) // block * block
            with partial.open("r+b") as file:
                file.truncate(offsets[whole])
            return whole, tally
    mark_done(mark, fingerprint, {})
    write_file(partial, b"")
    return 0, {}


def _read(mark: Path) -> tuple[str, Tally]:
    """Return what rows come from and what they took; nothing where that is missing or damaged: all is scored anew."""
    try:
        found, _, tally = mark.read_text("utf-8").partition("\n")
        content = json.loads(tally or "{}")
    except (FileNotFoundError, ValueError):
        return "", {}
    return (found, content) if isinstance(content, dict) else ("", {})
