"""What every engine offers, and the values that go in and out: documents with vectors, and what a search found."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32

from embedtrain.engines.layout import Abilities, Layout, VectorField
from embedtrain.retrieval.indexes import Kind
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

Vectors = Float32[np.ndarray, "_ _"] | TokenVectors | SparseVectors


class Entries(NamedTuple):
    """What is not 0 of a sparse vector: words ascending, and the weight of each."""

    indices: Int32[np.ndarray, " entries"]
    values: Float32[np.ndarray, " entries"]


Row = Float32[np.ndarray, " _"] | Float32[np.ndarray, "_ _"] | Entries
"""What one text has: a vector, one per token, or the weights of words."""


@dataclass(frozen=True)
class Document:
    """A document as an engine keeps it beside its vectors."""

    id: str
    text: str | None
    metadata: Mapping[str, Any]
    hash: str
    """Of the text, the metadata and the models: a document whose hash is there already need not be written."""

    @property
    def metadata_json(self) -> str:
        """The metadata where an engine knows no objects."""
        return json.dumps(self.metadata, ensure_ascii=False)


@dataclass(frozen=True)
class Record:
    """A document and what each field holds for it."""

    document: Document
    vectors: Mapping[str, Row]


@dataclass(frozen=True)
class Found:
    """One result of a search, its score as the model defines it: an inner product, or MaxSim."""

    id: str
    score: float
    text: str | None


@runtime_checkable
class Engine(Protocol):
    """A collection of an engine. Each call raises a :class:`UserError` where the engine refuses or is down."""

    place: str
    """The address, without a password."""
    abilities: Abilities
    takes_empty: frozenset[Kind]
    """Kinds of which a document may have nothing: no token, no entry."""

    def describe(self) -> Layout | None:
        """Return what the collection says about itself; None if there is no collection."""
        ...

    def settle(self, layout: Layout) -> None:
        """Make the collection if it is missing, and write down what it holds.

        With ``is_finished`` all documents are there, and indexes are built.
        """
        ...

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the hash of each of these documents that is there."""
        ...

    def write(self, records: Sequence[Record]) -> None:
        """Write documents; one that is there is replaced."""
        ...

    def ids(self) -> Iterator[str]:
        """Yield the id of every document."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents."""
        ...

    def count(self) -> int:
        """Return the number of documents."""
        ...

    def is_exact(self, field: VectorField) -> bool:
        """Say whether a search compares every document, so that it has to find what exact search finds."""
        ...

    def search(self, field: VectorField, queries: Vectors, num_results: int) -> list[list[Found]]:
        """Return what the engine finds best for each query, best first, equal scores by id."""
        ...

    def close(self) -> None:
        """Let go of the engine."""
        ...


def rows_of(vectors: Vectors) -> Iterator[Row]:
    """Yield what each text has."""
    if isinstance(vectors, TokenVectors):
        ends = np.cumsum(vectors.lengths)
        for end, length in zip(ends.tolist(), vectors.lengths.tolist(), strict=True):
            yield np.array(vectors.values[end - length : end], np.float32)
        return
    if isinstance(vectors, SparseVectors):
        for start, end in pairwise(vectors.offsets.tolist()):
            values = np.array(vectors.values[start:end], np.float32)
            yield Entries(np.array(vectors.indices[start:end], np.int32), values)
        return
    for row in vectors:
        yield np.array(row, np.float32)  # mapped files are read only


def is_empty(row: Row) -> bool:
    """Whether a text has no vector of a token, or no entry, which several engines refuse."""
    return len(row[0] if isinstance(row, Entries) else row) == 0


def best_first(found: Sequence[Found]) -> list[Found]:
    """Order results; an engine may leave equal scores in any order."""
    return sorted(found, key=lambda one: (-one.score, one.id))


def num_bytes(record: Record) -> int:
    """Return about how many bytes a record is on its way."""
    text = len(record.document.text or "") + len(record.document.metadata_json)
    return text + sum(
        sum(part.nbytes for part in row) if isinstance(row, Entries) else row.nbytes
        for row in record.vectors.values()
    )
