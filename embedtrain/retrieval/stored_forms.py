"""Every form that vectors which are there already can be stored in: cut, as numbers of few bits, pooled, in a graph."""

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
from embedtrain.retrieval.dense.indexes import ClusterSearch, FaissSearch, GraphSearch
from embedtrain.retrieval.late_interaction.token_pooling import pool_tokens
from embedtrain.types import Format, TokenVectors

Vectors = Float32[np.ndarray, "texts dim"]
FACTORS = (2, 4, 10)
"""Candidates per result wanted that bits find and a second look scores."""
BYTES_IN_GRAPH = "HNSW32,SQ8"
"""A byte per number and dimension's range, and the links of as many neighbours as :class:`GraphSearch` has."""
POOLED = (1, 2, 4)
"""Tokens that become one."""
TOKEN_FORMATS: dict[str, Format | None] = {
    "float32": None, "int8, ranges": "int8", "ternary": "ternary", "bits": "binary"
}  # fmt: skip


def sizes_of(dim: int, wanted: Sequence[int] = ()) -> list[int]:
    """Return the sizes to try, the whole one first: those that are asked for, or halves down to 64."""
    found = wanted or [dim // part for part in (2, 4, 8) if dim // part >= 64]
    return [dim, *sorted({size for size in found if size < dim}, reverse=True)]


def stored_forms(documents: Vectors | TokenVectors) -> Iterator[tuple[str, CompressedIndex]]:
    """Yield each form of documents of length 1, or of such tokens, by its name; float32 first."""
    if isinstance(documents, TokenVectors):
        yield from _token_forms(documents)
        return
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
    graph = GraphSearch()
    yield "float32 in a graph (HNSW)", graph.build(documents)
    yield (
        "int8 in a graph (HNSW)",
        FaissSearch(factory=BYTES_IN_GRAPH, parameters=f"efSearch={graph.effort}").build(documents),
    )
    yield "float32 in clusters (IVF)", ClusterSearch().build(documents)


def _token_forms(documents: TokenVectors) -> Iterator[tuple[str, CompressedIndex]]:
    """Yield late interaction's forms, all searched exactly: similar tokens pooled, of few bits."""
    for factor in POOLED if not documents.exact_match else POOLED[:1]:
        pooled = documents if factor == 1 else pool_tokens(documents, factor)
        end = "" if factor == 1 else f", pooled by {factor}"
        for name, kind in TOKEN_FORMATS.items():
            yield f"{name}{end}", Compression(quantize=kind).index(pooled)
