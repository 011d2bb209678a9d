"""The round trip: a reader must find the document that a query was written for, among all.

It keeps what the reader can find already; the ranks and the share lost are in the report.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from embedtrain.data.documents.document import Chunk
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.synthesis.row import Row
from embedtrain.synthesis.settings import RoundTrip

Reader = Callable[[Sequence[str], int], SearchResult]
"""Finds the best chunks of each query."""
QUERIES_AT_ONCE = 512
TAKEN = "round_trip"


def ask_reader(
    rows: Sequence[Row],
    chunks: Sequence[Chunk],
    clusters: Mapping[str, str],
    reader: Reader,
    settings: RoundTrip,
    progress: Callable[[int], None],
) -> None:
    """Take the rows whose document is not among the first; any chunk of it, or of a near copy, will do.

    Args:
        rows: Those that are kept are asked.
        chunks: What is searched, in the reader's order.
        clusters: Of each document the name that it shares with its near copies.
        reader: Who searches.
        settings: How far down is looked.
        progress: Told how many rows were asked.
    """
    owners = [clusters[chunk.unit] for chunk in chunks]
    asked = [row for row in rows if row.kept]
    depth = max(settings.depth, settings.top)
    for start in range(0, len(asked), QUERIES_AT_ONCE):
        block = asked[start : start + QUERIES_AT_ONCE]
        found = reader([row.candidate.query for row in block], depth)
        for row, indices in zip(block, found.indices.tolist(), strict=True):
            own = clusters[row.unit]
            row.rank = _rank(own, [owners[index] for index in indices if index >= 0])
            if row.rank is None or row.rank > settings.top:
                row.taken_by = TAKEN
        progress(len(block))


def _rank(own: str, found: Sequence[str]) -> int | None:
    """Return the place of a document among the different ones that were found, from 1."""
    different = list(dict.fromkeys(found))
    return different.index(own) + 1 if own in different else None


def ranks_of(rows: Sequence[Row], depth: int) -> dict[str, int]:
    """Count the ranks of the rows that were asked, those that were not found as ``none``."""
    asked = [row for row in rows if row.rank is not None or row.taken_by == TAKEN]
    counts = Counter("none" if row.rank is None else str(row.rank) for row in asked)
    names = [*map(str, range(1, depth + 1)), "none"]
    return {name: counts[name] for name in names if counts[name]}
