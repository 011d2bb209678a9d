"""Every index of every kind of vectors by the words of ``--index``: read, built, and what it misses.

The words are a name and, after a colon, settings: ``hnsw``, ``two_step:query_words=20,num_candidates=200``,
``faiss:factory=IVF256,Flat``. A piece without ``=`` belongs to the value before it.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import Field, TypeAdapter, ValidationError

from embedtrain.errors import UserError
from embedtrain.retrieval.compression import CompressedIndex
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.dense.indexes import DenseSearch, FaissIndex
from embedtrain.retrieval.index_folder import read_manifest
from embedtrain.retrieval.late_interaction.indexes import (
    LateInteractionSearch,
    load_late_interaction_index,
)
from embedtrain.retrieval.search import search
from embedtrain.retrieval.sparse.exact import ByteListSearch, InvertedIndex, InvertedSearch
from embedtrain.retrieval.sparse.seismic import SeismicIndex, SeismicSearch
from embedtrain.retrieval.sparse.two_step import TwoStepIndex, TwoStepSearch
from embedtrain.seals import keep_once, refuse_damaged
from embedtrain.section import Section
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

Vectors = Float[np.ndarray, "_ dim"] | TokenVectors | SparseVectors
Kind = Literal["dense", "late_interaction", "sparse"]

SparseSearch = Annotated[
    InvertedSearch | ByteListSearch | TwoStepSearch | SeismicSearch, Field(discriminator="name")
]
"""How documents of sparse vectors are searched: ``{name: two_step, query_words: 20}``."""

SETTINGS: dict[Kind, TypeAdapter[Any]] = {
    "dense": TypeAdapter(DenseSearch),
    "late_interaction": TypeAdapter(LateInteractionSearch),
    "sparse": TypeAdapter(SparseSearch),
}
LOADERS: dict[str, Callable[[Path], CompressedIndex]] = {
    "faiss": FaissIndex.load,
    "inverted": InvertedIndex.load,
    "uint8": InvertedIndex.load,
    "two_step": TwoStepIndex.load,
    "seismic": SeismicIndex.load,
}
"""By the kind that a folder says; those of late interaction have a door of their own."""
SPARE = 32
"""Exact results beyond those wanted, so that what ties with the last one counts as found."""


@dataclass(frozen=True)
class Built:
    """An index and the seconds that it took to build."""

    index: CompressedIndex
    seconds: float


def read_index(words: str, kind: Kind) -> Section:
    """Read the words of ``--index`` for vectors of a kind.

    Raises:
        UserError: If no index of this kind has the name, or it has no such setting or value.
    """
    name, _, rest = words.partition(":")
    settings: dict[str, str] = {}
    for piece in rest.split(",") if rest else ():
        key, equals, value = piece.partition("=")
        if equals and key.isidentifier():
            settings[key] = value
        elif settings:
            last = next(reversed(settings))
            settings[last] = f"{settings[last]},{piece}"
        else:
            cure = "Write NAME:key=value,key=value"
            raise UserError("--index", "has a setting without a name", got=piece, cure=cure)
    try:
        read: Section = SETTINGS[kind].validate_python({"name": name} | settings)
    except ValidationError as error:
        raise _refusal(error, words, kind) from error
    return read


def _refusal(error: ValidationError, words: str, kind: Kind) -> UserError:
    first = error.errors()[0]
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names = first["ctx"].get("expected_tags", "").replace("'", "")
        problem = f"names no index of {kind.replace('_', '-')} models"
        return UserError("--index", problem, got=words, cure=f"Use one of {names}")
    setting = ".".join(map(str, first["loc"][1:]))
    problem = f"cannot have this {setting} ({first['msg']})"
    return UserError(
        "--index", problem, got=words, cure="See the settings on the page of the model's kind"
    )


def build(documents: Vectors, settings: Any, device: torch.device | str = "cpu") -> Built:  # noqa: ANN401 - a section of its kind
    """Build the index that settings of the documents' own kind describe, and time it."""
    start = time.perf_counter()
    if isinstance(documents, SparseVectors):
        index: CompressedIndex = settings.build(documents)
    else:
        index = settings.build(documents, device)
    return Built(index, time.perf_counter() - start)


@runtime_checkable
class KeptIndex(CompressedIndex, Protocol):
    """An index that can be written into a folder."""

    def save(self, folder: Path) -> None:
        """Write the index into a folder, which appears only when complete."""
        ...


def open_index(
    documents: Vectors,
    settings: Any,  # noqa: ANN401 - a section of its kind
    folder: Path,
    device: torch.device | str = "cpu",
) -> CompressedIndex:
    """Load an index from a cache's folder, or build it and keep it there, if that is more than the vectors alone.

    The folder's name has to tell the vectors from all others; that of the index within is made of its settings.
    """
    if settings.name == "exact":
        return build(documents, settings, device).index
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:16]
    place = folder / f"{settings.name}-{digest}"
    refuse_damaged(place)
    if place.is_dir():
        return load_index(place, device)
    index = build(documents, settings, device).index
    if isinstance(index, KeptIndex):
        keep_once(place, index.save)
    return index


def load_index(folder: Path, device: torch.device | str = "cpu") -> CompressedIndex:
    """Load a saved index of any kind by its folder alone."""
    kind = read_manifest(folder)["kind"]
    if kind in LOADERS:
        return LOADERS[kind](folder)
    return load_late_interaction_index(folder, device)


def recall_of(
    index: CompressedIndex,
    queries: Vectors,
    documents: Vectors,
    depths: tuple[int, ...],
    device: torch.device | str = "cpu",
) -> dict[int, float]:
    """Measure, for each depth, what share of the exact best documents an index finds.

    Each depth is a search of its own: what an index looks at may grow with the results that are wanted.
    A document that scores as much as the last exact one counts as found, so ties cost nothing. A query with fewer
    exact results than the depth is judged by these.
    """
    exact = search(queries, documents, max(depths) + SPARE, device=device)
    return {depth: _recall(exact, index.search(queries, depth).indices, depth) for depth in depths}


def _recall(exact: SearchResult, found: Int64[np.ndarray, "queries _"], depth: int) -> float:
    hits = wanted = 0
    for rows, scores, own in zip(exact.indices, exact.scores, found, strict=True):
        real = int((rows >= 0).sum())
        count = min(depth, real)
        if count == 0:
            continue
        equal = rows[:real][scores[:real] >= scores[count - 1]]
        hits += min(count, int(np.isin(own[own >= 0], equal).sum()))
        wanted += count
    return hits / wanted if wanted else 1.0


def rows_of(vectors: Vectors, rows: Int64[np.ndarray, " chosen"]) -> Vectors:
    """Return the vectors of some texts, of whatever kind."""
    return vectors[rows] if isinstance(vectors, np.ndarray) else vectors.select(rows)
