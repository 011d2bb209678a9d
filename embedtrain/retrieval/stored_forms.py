"""Every form that vectors which are there already can be stored in: cut, as numbers of few bits, with a second copy."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from embedtrain.retrieval.compression import (
    CompressedIndex,
    Compression,
    FloatIndex,
    SignIndex,
    values_of,
)

Vectors = Float32[np.ndarray, "texts dim"]
FACTORS = (2, 4, 10)
"""Candidates per result wanted that bits find and a second look scores."""


def sizes_of(dim: int, wanted: Sequence[int] = ()) -> list[int]:
    """Return the sizes to try, the whole one first: those that are asked for, or halves down to 64."""
    found = wanted or [dim // part for part in (2, 4, 8) if dim // part >= 64]
    return [dim, *sorted({size for size in found if size < dim}, reverse=True)]


def stored_forms(documents: Vectors) -> Iterator[tuple[str, CompressedIndex]]:
    """Yield each form of documents of length 1 by its name; float32 first."""
    yield "float32", Compression().index(documents)
    half = documents.astype(np.float16)
    yield "float16", FloatIndex(half.astype(np.float32), half.nbytes)
    yield "int8, ranges", Compression(quantize="int8").index(documents)
    fixed = values_of(documents, "int8")
    yield "int8", FloatIndex(fixed, documents.size)
    yield "ternary", Compression(quantize="ternary").index(documents)
    signs = Compression(quantize="binary", rescore=1).index(documents)
    assert isinstance(signs, SignIndex)
    yield "bits", FloatIndex(values_of(documents, "binary"), signs.num_bytes)
    yield "bits, by Hamming", signs
    for factor in FACTORS:
        yield f"bits, {factor} times by Hamming", replace(signs, rescore=factor)
        yield (
            f"bits, {factor} times by Hamming, int8 copy",
            replace(signs, rescore=factor, copy=fixed, copy_bytes=documents.size),
        )
