"""Which texts a cache holds already, and which documents answer which query: on disk, not in memory."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.types import Side

VARIABLES_AT_ONCE = 10_000
NUM_MARKS = 2**26
"""Marks of a byte that tell new texts; of 5 million texts one new one in 50 is asked for in vain."""


class Seen:
    """An SQLite file that lives while a cache is built; durability is pointless, so it is off."""

    def __init__(self, path: Path) -> None:
        self._marks = np.zeros(NUM_MARKS, dtype=bool)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            PRAGMA cache_size = -131072; -- KiB: ids are hashes, so that rows go everywhere
            CREATE TABLE query (id INTEGER PRIMARY KEY, row INTEGER);
            CREATE TABLE document (id INTEGER PRIMARY KEY, row INTEGER);
            CREATE TABLE known (query INTEGER, document INTEGER, PRIMARY KEY (query, document)) WITHOUT ROWID;
            BEGIN;
            """
        )

    def rows(self, side: Side, ids: Iterable[int]) -> dict[int, int]:
        """Return the row of each id that was added."""
        wanted = self._perhaps_added(ids)
        found: dict[int, int] = {}
        for start in range(0, len(wanted), VARIABLES_AT_ONCE):
            part = wanted[start : start + VARIABLES_AT_ONCE]
            marks = ",".join("?" * len(part))
            found.update(
                self._db.execute(f"SELECT id, row FROM {side} WHERE id IN ({marks})", part)
            )
        return found

    def add(self, side: Side, pairs: Sequence[tuple[int, int]]) -> None:
        """Remember ``(id, row)`` pairs."""
        for places in self._places([i for i, _ in pairs]):
            self._marks[places] = True
        self._db.executemany(f"INSERT INTO {side} VALUES (?, ?)", pairs)

    def add_known(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Remember ``(row of the query, id of a positive document)`` pairs."""
        self._db.executemany("INSERT OR IGNORE INTO known VALUES (?, ?)", pairs)

    def known(self) -> Iterator[tuple[int, int]]:
        """Yield all known pairs in the order of the queries, then of the documents."""
        yield from self._db.execute("SELECT query, document FROM known ORDER BY query, document")

    def _perhaps_added(self, ids: Iterable[int]) -> list[int]:
        """Return those ids that were added, and few others: most texts are new, and asking takes longer."""
        wanted = list(ids)
        first, second = self._places(wanted)
        marked = self._marks[first] & self._marks[second]
        return [wanted[n] for n in np.flatnonzero(marked).tolist()]

    def _places(self, ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return two marks of each id; ids are hashes of 63 bits."""
        numbers = np.array(ids, dtype=np.int64)
        return numbers % NUM_MARKS, (numbers >> 32) % NUM_MARKS

    def close(self) -> None:
        """Close the file."""
        self._db.close()
