"""Vectors of a whole vocabulary of which few numbers are not 0: only these are kept, text behind text (CSR)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64
from scipy.sparse import csr_array

TEXTS_AT_ONCE = 2**14
"""Texts whose entries are sorted in memory at once."""
UBIQUITOUS = 0.5
"""A word that more texts have than this share says little about any of them."""


@dataclass(frozen=True)
class SparseVectors:
    """One sparse vector per text, as arrays that may be memory-mapped: a corpus, or its queries.

    The entries of text ``i`` are ``values[offsets[i]:offsets[i + 1]]``; ``indices`` says of which of the ``dim``
    words each is, ascending within a text. A text without entries has a vector of zeros; nothing is stored as 0.
    """

    values: Float[np.ndarray, " entries"]
    indices: Int32[np.ndarray, " entries"]
    offsets: Int64[np.ndarray, " texts_and_one"]
    dim: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64[np.ndarray, " texts"]:
        """The number of entries of each text."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return self.values.nbytes + self.indices.nbytes + self.offsets.nbytes

    @classmethod
    def of_dense(cls, values: Float[np.ndarray, "texts dim"]) -> "SparseVectors":
        """Keep what is not 0, in float32."""
        rows, columns = np.nonzero(values)
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=len(values)), out=offsets[1:])
        kept = values[rows, columns].astype(np.float32)
        return cls(kept, columns.astype(np.int32), offsets, values.shape[1])

    @classmethod
    def joined(cls, blocks: Sequence["SparseVectors"]) -> "SparseVectors":
        """Lay the vectors of several blocks of texts end to end."""
        lengths = np.concatenate([block.lengths for block in blocks])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        values, indices = (
            np.concatenate([getattr(block, name) for block in blocks])
            for name in ("values", "indices")
        )
        return cls(values, indices, offsets, blocks[0].dim)

    def part(self, start: int, stop: int) -> "SparseVectors":
        """Return the texts from ``start`` to ``stop``, without copying an entry."""
        offsets = self.offsets[start : stop + 1]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        return SparseVectors(
            self.values[entries], self.indices[entries], offsets - offsets[0], self.dim
        )

    def select(self, rows: Int64[np.ndarray, " chosen"]) -> "SparseVectors":
        """Copy the texts at ``rows``, in that order."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        entries = np.arange(lengths.sum()) + np.repeat(self.offsets[rows] - ends + lengths, lengths)
        offsets = np.concatenate([np.zeros(1, np.int64), ends])
        return SparseVectors(self.values[entries], self.indices[entries], offsets, self.dim)

    def heaviest(self, entries: int) -> "SparseVectors":
        """Keep so many entries of each text at most, the largest; of equal ones those of lower words."""
        if len(self) == 0 or int(self.lengths.max()) <= entries:
            return self
        starts = range(0, len(self), TEXTS_AT_ONCE)
        parts = [self.part(at, min(at + TEXTS_AT_ONCE, len(self))) for at in starts]
        return SparseVectors.joined([_heaviest(part, entries) for part in parts])

    def products(self, others: "SparseVectors") -> Float64[np.ndarray, " texts"]:
        """Return the inner product of each text with the one of ``others`` in its place, in float64."""
        pairs = self.matrix().astype(np.float64).multiply(others.matrix())
        products: Float64[np.ndarray, " texts"] = np.asarray(pairs.sum(axis=1)).reshape(-1)
        return products

    def matrix(self) -> csr_array:
        """Return a matrix of shape [texts, dim] over the same values."""
        shape = (len(self), self.dim)
        return csr_array((self.values, self.indices, self.offsets), shape=shape, copy=False)

    def dense(self) -> Float32[np.ndarray, "texts dim"]:
        """Return all numbers, zeros included: for a few texts."""
        values: Float32[np.ndarray, "texts dim"] = self.matrix().toarray().astype(np.float32)
        return values


def _heaviest(vectors: SparseVectors, entries: int) -> SparseVectors:
    lengths = vectors.lengths
    rows = np.repeat(np.arange(len(vectors)), lengths)
    order = np.lexsort((-vectors.values, rows))  # stable: equal values stay in the order of words
    place = np.arange(len(order)) - np.repeat(vectors.offsets[:-1], lengths)
    kept = np.sort(order[place < entries])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths.clip(max=entries))])
    return replace(
        vectors, values=vectors.values[kept], indices=vectors.indices[kept], offsets=offsets
    )
