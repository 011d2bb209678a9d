"""Approximate search with faiss, and how much of the exact result it finds.

An index is chosen by a faiss factory string: ``Flat`` (exact), ``SQ8`` (a byte per number), ``HNSW32``
(a graph), ``IVF1024,Flat`` (clusters) and so on. Up to about a million documents ``Flat`` is often enough.

Source: https://github.com/facebookresearch/faiss/wiki/The-index-factory.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Float32, Int64

from embedtrain.errors import UserError
from embedtrain.files import appearing
from embedtrain.retrieval.dense.exact import SearchResult, search_exact

DocumentVectors = Float[np.ndarray, "documents dim"]
QueryVectors = Float[np.ndarray, "queries dim"]

ROWS_PER_BLOCK = 2**16
"""Documents copied into memory at once while an index is filled."""
TRAINING_ROWS = 2**18
"""Documents, at most, on which clusters and quantisers are trained."""
SPARE_RESULTS = 8
"""Results fetched beyond those wanted, since faiss orders equal scores in no fixed way."""

Index = Any
"""A ``faiss.Index``; faiss has no types."""


def build_index(
    documents: DocumentVectors, factory: str = "Flat", *, parameters: str = "", seed: int = 0
) -> Index:
    """Build an inner-product index; ``parameters`` of its search read ``nprobe=32`` or ``efSearch=128``.

    Clusters and quantisers are trained on a seeded sample. Documents mapped from a file are read in
    blocks; result indices are their row numbers.
    """
    try:
        index = faiss.index_factory(documents.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if parameters:
            set_parameters(index, parameters)
        if not index.is_trained:
            index.train(_load(documents[sample_rows(len(documents), TRAINING_ROWS, seed)]))
    except RuntimeError as error:
        raise UserError(
            "faiss",
            f"cannot build this index ({_reason(error)})",
            got=", ".join(filter(None, (factory, parameters))),
            cure="Use a factory string such as Flat, SQ8, HNSW32 or, with enough documents, IVF256,Flat",
        ) from error
    for start in range(0, len(documents), ROWS_PER_BLOCK):
        index.add(_load(documents[start : start + ROWS_PER_BLOCK]))
    return index


def set_parameters(index: Index, parameters: str) -> None:
    """Set how an index searches: ``nprobe=32``, ``efSearch=128``."""
    faiss.ParameterSpace().set_index_parameters(index, parameters)


def search_index(index: Index, queries: QueryVectors, num_results: int) -> SearchResult:
    """Find documents with large inner products; equal scores are ordered by the lower document index.

    Scores are those of the index, so a quantised one gives quantised scores. An index that finds too few
    documents for a query leaves places unused.
    """
    if queries.shape[1] != index.d:
        raise UserError(
            "search",
            f"needs queries of the index's dimension {index.d}",
            got=queries.shape[1],
            cure="Encode them with the model that made the index",
        )
    fetched = min(num_results + SPARE_RESULTS, index.ntotal)
    scores, indices = index.search(_load(queries), fetched)
    scores = np.where(indices < 0, np.float32(-np.inf), scores)
    order = np.lexsort((indices, -scores), axis=1)[:, :num_results]
    return SearchResult(
        np.take_along_axis(indices, order, axis=1), np.take_along_axis(scores, order, axis=1)
    )


def measure_recall(
    index: Index,
    queries: QueryVectors,
    documents: DocumentVectors,
    num_results: int,
    *,
    num_queries: int = 200,
    seed: int = 0,
) -> float:
    """Measure what share of the exact best documents an index finds, on a seeded sample of the queries.

    A document that scores as much as the last exact one counts as found, so ties cost nothing.
    """
    sample = queries[sample_rows(len(queries), num_queries, seed)]
    exact = _rescore(sample, documents, search_exact(sample, documents, num_results))
    found = _rescore(sample, documents, search_index(index, sample, num_results))
    hits = found >= exact.min(axis=1, keepdims=True)
    return float(hits.sum() / exact.size)  # not of found: an index may hold fewer documents


def save_index(index: Index, path: Path) -> None:
    """Write an index to a file, which appears only when complete."""
    try:
        with appearing(path) as partial:
            faiss.write_index(index, str(partial))
    except RuntimeError as error:
        raise UserError(
            path, f"cannot be written ({_reason(error)})", cure="Check the folder and free space"
        ) from error


def load_index(path: Path) -> Index:
    """Read an index that :func:`save_index` wrote, with its search parameters."""
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise UserError(
            path, f"is not a faiss index ({_reason(error)})", cure="Build the index again"
        ) from error


def index_bytes(index: Index) -> int:
    """Count the bytes that an index takes as a file, without making a copy."""
    count = 0

    def add(piece: bytes) -> int:
        nonlocal count
        count += len(piece)
        return len(piece)

    faiss.write_index(index, faiss.PyCallbackIOWriter(add))
    return count


def sample_rows(num_rows: int, wanted: int, seed: int) -> Int64[np.ndarray, " chosen"]:
    """Draw at most ``wanted`` different rows, in ascending order."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.sort(generator.choice(num_rows, size=min(wanted, num_rows), replace=False))


def _load(embeddings: Float[np.ndarray, "texts dim"]) -> Float32[np.ndarray, "texts dim"]:
    loaded = np.ascontiguousarray(embeddings, dtype=np.float32)
    if not np.isfinite(loaded).all():
        raise UserError("embeddings", "hold NaN or infinity", cure="Check the model and its input")
    return loaded


def _rescore(queries: QueryVectors, documents: DocumentVectors, result: SearchResult) -> np.ndarray:
    """Score results in float64; unused places score -inf.

    Not a matrix product: that may round equal documents differently, depending on their place.
    """
    scores = np.stack(
        [
            (documents[row].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
            for row, query in zip(result.indices, queries, strict=True)
        ]
    )
    return np.where(result.indices < 0, -np.inf, scores)


def _reason(error: Exception) -> str:
    """Keep the last part of faiss's message, which follows the place in its source code."""
    return str(error).rsplit(": ", 1)[-1]
