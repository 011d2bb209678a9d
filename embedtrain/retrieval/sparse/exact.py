"""Exact search by sparse vectors, with weights as they are or as bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.index_folder import new_folder, read_manifest, write_manifest
from embedtrain.retrieval.sparse.posting_lists import PostingLists, check_documents
from embedtrain.section import Section
from embedtrain.sparse_vectors import SparseVectors


@runtime_checkable
class SparseIndex(Protocol):
    """A searchable corpus. Results are row numbers of the documents, best first, ties by lower number.

    A document without a common word is no result: places are left unused (``-1`` and ``-inf``).
    """

    @property
    def kind(self) -> str:
        """The name under which commands and folders know this kind of index."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes that searching needs in memory or on disk."""
        ...

    def search(self, queries: SparseVectors, num_results: int) -> SearchResult:
        """Return the best documents of each query."""
        ...

    def save(self, folder: Path) -> None:
        """Write the index into a folder, which appears only when complete."""
        ...


@dataclass(frozen=True)
class InvertedIndex:
    """Scores every document that shares a word with the query, exactly."""

    lists: PostingLists
    kind: Literal["inverted", "uint8"] = "inverted"

    @classmethod
    def of(cls, documents: SparseVectors) -> "InvertedIndex":
        """Make the index of documents, their weights as they are."""
        return cls(PostingLists.of(check_documents(documents)))

    @property
    def num_bytes(self) -> int:
        """Bytes of the lists."""
        return self.lists.num_bytes

    def touched(self, queries: SparseVectors) -> Int64[np.ndarray, " queries"]:
        """Count the postings that each query reads."""
        return self.lists.touched(queries)

    def search(self, queries: SparseVectors, num_results: int) -> SearchResult:
        """Return the best documents of each query; see :meth:`PostingLists.search`."""
        return self.lists.search(queries, num_results)

    def save(self, folder: Path) -> None:
        """Write the lists as ``.npy`` files and a manifest."""
        with new_folder(folder) as partial:
            write_manifest(partial, self.kind, self.lists.write(partial))

    @classmethod
    def load(cls, folder: Path) -> "InvertedIndex":
        """Map a saved index into memory."""
        manifest = read_manifest(folder, None, "num_documents", "step")
        return cls(PostingLists.read(folder, manifest), manifest["kind"])


class InvertedSearch(Section):
    """Score every document that shares a word with the query: the truth, and fast to some 100,000 documents."""

    name: Literal["exact"] = "exact"

    def build(self, documents: SparseVectors) -> InvertedIndex:
        """Make the lists."""
        return InvertedIndex.of(documents)


class ByteListSearch(Section):
    """The same with one byte for each weight, in steps of 1/255 of the largest weight of the corpus."""

    name: Literal["uint8"] = "uint8"

    def build(self, documents: SparseVectors) -> InvertedIndex:
        """Make the lists and round their weights."""
        return InvertedIndex(PostingLists.of(check_documents(documents)).in_bytes(), "uint8")
