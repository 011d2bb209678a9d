"""Texts that stand inside one another: what of a corpus repeats texts that are known already."""

from collections.abc import Iterable

import numpy as np

from embedtrain.data.near_duplicates import shingle_hashes

CONTAINED = 0.8
"""Share of the shorter text's shingles that the longer one has as well."""
FEWEST_SHINGLES = 6
"""A text of fewer, eight words or less, is found in many by chance, and repeats only what has no more words."""


class Copies:
    """Known texts, by their sets of three successive words (case and punctuation aside).

    Where near duplicates are about as long as one another (:mod:`embedtrain.data.near_duplicates`), here one may be a
    part of the other: a chunk of a document, or the page around an answer. The measure is containment (Broder 1997,
    https://doi.org/10.1109/SEQUEN.1997.666900), exact but for equal hashes of 32 bits.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        found = [shingle_hashes(text).astype(np.uint32) for text in texts]
        self._sizes = np.array([hashes.size for hashes in found], dtype=np.int64)
        owners = np.repeat(np.arange(len(found), dtype=np.int32), self._sizes)
        hashes = np.concatenate(found) if found else np.empty(0, np.uint32)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]

    def find(self, text: str) -> int | None:
        """Return the index of the known text that a text stands in, or that stands in it; None where none does."""
        own = shingle_hashes(text).astype(np.uint32)
        first = np.searchsorted(self._hashes, own, side="left")
        last = np.searchsorted(self._hashes, own, side="right")
        if not (last > first).any():
            return None
        met = [self._owners[start:end] for start, end in zip(first, last, strict=True)]
        owners, shared = np.unique(np.concatenate(met), return_counts=True)
        sizes = self._sizes[owners]
        shorter = np.minimum(sizes, own.size)
        longer = np.maximum(sizes, own.size)
        compared = (shorter >= FEWEST_SHINGLES) | (longer < FEWEST_SHINGLES)
        same = owners[compared & (shared >= CONTAINED * shorter)]
        return int(same[0]) if same.size else None
