"""Cosines between the documents of a row, as a teacher sees each beside the query: kept without their mirror image.

Row by row, what stands right of the diagonal of the square: (0, 1), (0, 2), ..., (1, 2), ...
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64


def num_pairs(size: int) -> int:
    """Return how many cosines there are between ``size`` documents."""
    return size * (size - 1) // 2


def gram_of(features: Float64[np.ndarray, "documents dim"]) -> Float64[np.ndarray, " pairs"]:
    """Return the cosines between features."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    units = features / np.maximum(norms, np.finfo(np.float64).tiny)
    found: Float64[np.ndarray, " pairs"] = (units @ units.T)[np.triu_indices(len(units), 1)]
    return found


def square_of(
    gram: Sequence[float] | Float32[np.ndarray, " pairs"], size: int
) -> Float32[np.ndarray, "documents documents"]:
    """Return the whole matrix between ``size`` documents."""
    square = np.eye(size, dtype=np.float32)
    upper = np.triu_indices(size, 1)
    square[upper] = gram
    square.T[upper] = gram
    return square


def part_of(gram: tuple[float, ...], size: int, kept: Sequence[bool]) -> tuple[float, ...]:
    """Return the cosines between those of ``size`` documents that are kept; none where there are none."""
    if not gram:
        return gram
    rows, columns = np.triu_indices(size, 1)
    chosen = np.array(kept)[rows] & np.array(kept)[columns]
    return tuple(np.array(gram)[chosen].tolist())
