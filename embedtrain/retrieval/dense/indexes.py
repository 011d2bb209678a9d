"""Every index of one vector per text by its name: how it is set, and what it costs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from embedtrain.retrieval.compression import CompressedIndex, Compression
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.dense.faiss_index import (
    Index,
    build_index,
    index_bytes,
    load_index,
    save_index,
    search_index,
)
from embedtrain.retrieval.index_folder import new_folder, read_manifest, write_manifest
from embedtrain.section import Count, Section

DocumentVectors = Float[np.ndarray, "documents dim"]

FAISS_FILE = "vectors.faiss"
VECTORS_PER_CLUSTER = 39
"""Fewer, and faiss warns that clusters are badly placed."""


@dataclass(frozen=True)
class FaissIndex:
    """An index of faiss with its search parameters."""

    index: Index
    kind: Literal["faiss"] = "faiss"

    @property
    def num_bytes(self) -> int:
        """Bytes of the index as a file."""
        return index_bytes(self.index)

    def search(self, queries: Float[np.ndarray, "queries dim"], num_results: int) -> SearchResult:
        """Return the documents that faiss finds; equal scores by the lower row."""
        return search_index(self.index, queries, num_results)

    def save(self, folder: Path) -> None:
        """Write faiss's own file and a manifest."""
        with new_folder(folder) as partial:
            save_index(self.index, partial / FAISS_FILE)
            write_manifest(partial, self.kind, {})

    @classmethod
    def load(cls, folder: Path) -> "FaissIndex":
        """Read a saved index."""
        read_manifest(folder, "faiss")
        return cls(load_index(folder / FAISS_FILE))


class FlatSearch(Section):
    """Score every document: the truth."""

    name: Literal["exact"] = "exact"

    def build(
        self, documents: DocumentVectors, device: torch.device | str = "cpu"
    ) -> CompressedIndex:
        """Put the vectors where they are searched."""
        return Compression().index(documents, device)


class ByteSearch(Section):
    """Score every document by a byte per number."""

    name: Literal["int8"] = "int8"

    def build(
        self, documents: DocumentVectors, device: torch.device | str = "cpu"
    ) -> CompressedIndex:
        """Round the numbers of each dimension to 256 steps."""
        return Compression(quantize="int8").index(documents, device)


class TernarySearch(Section):
    """Score every document by one of three levels per number."""

    name: Literal["ternary"] = "ternary"

    def build(
        self, documents: DocumentVectors, device: torch.device | str = "cpu"
    ) -> CompressedIndex:
        """Keep signs, and which numbers are near 0."""
        return Compression(quantize="ternary").index(documents, device)


class SignSearch(Section):
    """Find candidates by a bit per number, and score them again by the query's floats."""

    name: Literal["binary"] = "binary"
    rescore: Count = 4
    """Candidates per result wanted."""

    def build(
        self, documents: DocumentVectors, device: torch.device | str = "cpu"
    ) -> CompressedIndex:
        """Keep the signs."""
        return Compression(quantize="binary", rescore=self.rescore).index(documents, device)


class GraphSearch(Section):
    """Walk a graph of near documents (HNSW)."""

    name: Literal["hnsw"] = "hnsw"
    links: Count = 32
    """Neighbours of a document in the graph."""
    effort: Count = 128
    """Documents held in view while a query walks; more find more."""

    def build(self, documents: DocumentVectors, device: torch.device | str = "cpu") -> FaissIndex:
        """Link the documents, one after the other."""
        del device
        parameters = f"efSearch={self.effort}"
        return FaissIndex(build_index(documents, f"HNSW{self.links}", parameters=parameters))


class ClusterSearch(Section):
    """Score the documents of the clusters nearest to the query (IVF)."""

    name: Literal["ivf"] = "ivf"
    clusters: Count | None = None
    """Null takes 4 times the square root of the number of documents, and one for 39 of them at most."""
    probes: Count = 16
    """Clusters that are searched; more find more."""
    seed: int = 0
    """Draws the documents that clusters are made of, where there are many."""

    def build(self, documents: DocumentVectors, device: torch.device | str = "cpu") -> FaissIndex:
        """Cluster the documents."""
        del device
        usual = min(int(4 * len(documents) ** 0.5), len(documents) // VECTORS_PER_CLUSTER)
        factory = f"IVF{self.clusters or max(1, usual)},Flat"
        parameters = f"nprobe={self.probes}"
        return FaissIndex(build_index(documents, factory, parameters=parameters, seed=self.seed))


class FaissSearch(Section):
    """Search with any index that faiss's factory makes."""

    name: Literal["faiss"] = "faiss"
    factory: str
    """``SQ8``, ``IVF1024,PQ32``, ``HNSW32,SQ8`` ..."""
    parameters: str = ""
    """How the index searches: ``nprobe=32``."""
    seed: int = 0

    def build(self, documents: DocumentVectors, device: torch.device | str = "cpu") -> FaissIndex:
        """Build and train what the factory says."""
        del device
        built = build_index(documents, self.factory, parameters=self.parameters, seed=self.seed)
        return FaissIndex(built)


DenseSearch = Annotated[
    FlatSearch
    | ByteSearch
    | TernarySearch
    | SignSearch
    | GraphSearch
    | ClusterSearch
    | FaissSearch,
    Field(discriminator="name"),
]
"""How documents of one vector are searched: ``{name: hnsw, effort: 64}``."""
