"""How near a graph with smaller numbers is to its model, and whether a text's vector depends on its batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedtrain.encoding.texts import encode_texts
from embedtrain.models.encoder import TextEncoder
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Side, TokenVectors

Vectors = list[NDArray[np.float32]]
TOGETHER = 16
SIDES: tuple[Side, ...] = ("query", "document")
GLIMPSE = 40
"""Letters of the worst text that are shown."""


@dataclass(frozen=True)
class Fidelity:
    """Cosine distances between vectors of one text."""

    mean: float
    largest: float
    worst: str
    """The text whose vector is farthest off."""
    apart: float
    """The largest one between a text alone and the same text among others."""

    def __str__(self) -> str:
        worst = self.worst if len(self.worst) <= GLIMPSE else f"{self.worst[:GLIMPSE]}..."
        return (
            f"cosine distance to float32 {self.mean:.1e} on average, {self.largest:.1e} at most ({worst!r}); "
            f"a text alone and among others differs by up to {self.apart:.1e}"
        )


def measure(
    model: TextEncoder, run: Callable[[Sequence[str], Side], Vectors], texts: Sequence[str]
) -> Fidelity:
    """Compare a graph with its model on texts in the order given, together and one by one; empty ones are left out."""
    texts = [text for text in texts if text.strip()]
    errors, apart, named = [], 0.0, []
    for side in SIDES:
        ours = by_text(encode_texts(model, texts, side, precision="fp32"))
        theirs: Vectors = []
        for start in range(0, len(texts), TOGETHER):
            theirs += run(texts[start : start + TOGETHER], side)
        alone = [run([text], side)[0] for text in texts]
        errors += [distance(one, other) for one, other in zip(ours, theirs, strict=True)]
        named += list(texts)
        apart = max(apart, *(distance(a, b) for a, b in zip(alone, theirs, strict=True)))
    place = int(np.argmax(errors))
    return Fidelity(float(np.mean(errors)), errors[place], named[place], apart)


def distance(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> float:
    """Return the largest cosine distance between rows; 2, the most there is, if shapes or numbers are no match."""
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return 2.0
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    products = (ours.astype(np.float64) * theirs).sum(axis=1)
    return float(1 - (products[norms > 0] / norms[norms > 0]).min(initial=1.0))


def by_text(vectors: NDArray[np.float32] | TokenVectors | SparseVectors) -> Vectors:
    """Return the vectors of each text, one or several."""
    if isinstance(vectors, SparseVectors):
        vectors = vectors.dense()
    if isinstance(vectors, TokenVectors):
        return np.split(vectors.values, np.cumsum(vectors.lengths)[:-1])
    return [row[None] for row in vectors]
