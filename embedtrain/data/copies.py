"""Texts that stand inside one another: what of a corpus repeats texts that are known already."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from embedtrain.data.near_duplicates import shingle_hashes

CONTAINED = 0.8
"""Share of the shorter text's shingles that the longer one has as well."""
FEWEST_SHINGLES = 6
"""A text of fewer, seven words or less, is found in many by chance, and repeats only what has no more words."""
MOST_OWNERS = 1_000
"""A shingle of more known texts is passed over: it tells nothing of one, and looking at all of them would take long."""


class Copies:
    """Known texts, by their sets of three successive words (case and punctuation aside).

    Where near duplicates are about as long as one another (:mod:`embedtrain.data.near_duplicates`), here one may be a
    part of the other: a chunk of a document, or the page around an answer. The measure is containment (Broder 1997,
    https://doi.org/10.1109/SEQUEN.1997.666900) of what is not common to a thousand texts, exact but for equal hashes of
    32 bits.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        found = [shingle_hashes(text).astype(np.uint32) for text in texts]
        owners = np.repeat(np.arange(len(found), dtype=np.int32), [one.size for one in found])
        hashes = np.concatenate(found) if found else np.empty(0, np.uint32)
        known, counts = np.unique(hashes, return_counts=True)
        self._common = known[counts > MOST_OWNERS]
        rare = ~np.isin(hashes, self._common)
        hashes, owners = hashes[rare], owners[rare]
        self._sizes = np.bincount(owners, minlength=len(found))
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]

    def find(self, text: str) -> NDArray[np.int64]:
        """Return the indices of the known texts that a text stands in, or that stand in it."""
        own = shingle_hashes(text).astype(np.uint32)
        own = own[~np.isin(own, self._common)]
        first = np.searchsorted(self._hashes, own, side="left")
        last = np.searchsorted(self._hashes, own, side="right")
        met = [self._owners[start:end] for start, end in zip(first, last, strict=True)]
        owners, shared = np.unique(
            np.concatenate([np.empty(0, np.int32), *met]), return_counts=True
        )
        sizes = self._sizes[owners]
        shorter, longer = np.minimum(sizes, own.size), np.maximum(sizes, own.size)
        compared = (shorter >= FEWEST_SHINGLES) | (longer < FEWEST_SHINGLES)
        same: NDArray[np.int64] = owners[compared & (shared >= CONTAINED * shorter)].astype(
            np.int64
        )
        return same
