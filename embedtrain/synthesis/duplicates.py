"""Queries that say the same: exactly, nearly by their words, nearly by their vectors."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32

from embedtrain.data.near_duplicates import near_duplicates
from embedtrain.mining.identity import text_digest
from embedtrain.retrieval.dense.exact import search_exact
from embedtrain.synthesis.row import Row

DUPLICATE = "duplicate"
JOINED = "joined"
NEIGHBOURS = 8
"""Nearest queries that each is compared with."""
Embed = Callable[[Sequence[str]], Float32[np.ndarray, "queries dim"] | None]
"""Computes vectors of queries; None where the model makes more than one of each."""


def drop_duplicates(rows: Sequence[Row], cosine: float, embed: Embed | None) -> None:
    """Take all but the first of queries that nearly repeat one another, and repetitions within a document.

    The same query of several documents stays for :func:`join_same`, which knows what the round trip said of each.
    """
    first: dict[bytes, Row] = {}
    seen: set[tuple[bytes, str]] = set()
    for row in (row for row in rows if row.kept):
        key = text_digest(row.candidate.query)
        if (key, row.unit) in seen:
            row.taken_by = DUPLICATE
        seen.add((key, row.unit))
        first.setdefault(key, row)
    different = list(first.values())
    repeated = _repeated(different, near_duplicates([row.candidate.query for row in different]))
    if embed is not None and different:
        left = [row for row in different if id(row) not in repeated]
        vectors = embed([row.candidate.query for row in left])
        if vectors is not None:
            repeated |= _repeated(left, _nearest(vectors, cosine))
    dropped = {key for key, row in first.items() if id(row) in repeated}
    for row in rows:
        if row.kept and text_digest(row.candidate.query) in dropped:
            row.taken_by = DUPLICATE


def _repeated(rows: Sequence[Row], originals: Sequence[int]) -> set[int]:
    return {id(rows[n]) for n, original in enumerate(originals) if n != original}


def _nearest(vectors: Float32[np.ndarray, "queries dim"], cosine: float) -> list[int]:
    """Return for each query the first kept one with at least this cosine, or itself."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    found = search_exact(units, units, min(NEIGHBOURS, len(units)))
    originals: list[int] = []
    for row, (near, scores) in enumerate(zip(found.indices, found.scores, strict=True)):
        similar = [
            other
            for other, score in zip(near.tolist(), scores.tolist(), strict=True)
            if other < row and score >= cosine and originals[other] == other
        ]
        originals.append(min(similar, default=row))
    return originals


def join_same(rows: Sequence[Row], split_of: Callable[[Row], str], most: int) -> None:
    """Make one query with several positives of the same query of several documents.

    It is dropped where a document of it was not kept, where they are of different splits, or more than ``most``:
    nobody could say then what answers it.
    """
    groups: dict[bytes, list[Row]] = {}
    for row in rows:
        if row.kept or row.taken_by == "round_trip":
            groups.setdefault(text_digest(row.candidate.query), []).append(row)
    for group in groups.values():
        if len(group) == 1:
            continue
        fits = all(row.kept for row in group) and len({split_of(row) for row in group}) == 1
        for row in group[1 if fits and len(group) <= most else 0 :]:
            if row.kept:
                row.taken_by = JOINED if fits and len(group) <= most else DUPLICATE
        if group[0].kept:
            group[0].also.extend(group[1:])
