"""Candidates from a dense model: exact search over mapped embeddings, or a faiss index of measured recall."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray
from pydantic import Field

from embedtrain.encoding.shards import Shard, wait_for
from embedtrain.errors import UserError
from embedtrain.mining.indexed import ModelSearch
from embedtrain.mining.search import SPARE, CandidateSource, best_first, pair_products
from embedtrain.progress import console
from embedtrain.retrieval.dense.exact import search_exact
from embedtrain.retrieval.dense.faiss_index import (
    Index,
    build_index,
    load_index,
    measure_recall,
    save_index,
    search_index,
    set_parameters,
)

MOST_DOUBLINGS = 12
TUNED = {"IVF": "nprobe", "HNSW": "efSearch"}
"""The search parameter that trades time for recall, by a part of the factory string."""


class DenseSearch(ModelSearch):
    """Candidates nearest to the query under a dense model."""

    kind: Literal["dense"] = "dense"
    index: str | None = None
    """A faiss factory string such as ``IVF1024,Flat``; null searches exactly."""
    min_recall: float = Field(default=0.95, ge=0, le=1)
    """Of the exact results at ``depth``; ``nprobe`` or ``efSearch`` is doubled until it is reached."""


@dataclass(frozen=True)
class EncodedPairs:
    """The queries and documents of a task under one model: searches, and scores any pair."""

    key: str
    queries: Float32[np.ndarray, "queries dim"]
    documents: Float32[np.ndarray, "documents dim"]
    device: str = "cpu"

    def score(
        self, rows: NDArray[np.int64], documents: Int64[np.ndarray, "queries candidates"]
    ) -> Float64[np.ndarray, "queries candidates"]:
        """Score each query with each of its candidates."""
        return pair_products(self.queries[rows], self.documents, documents)

    def search(self, rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        """Search exactly; ordered by scores in float64, equal ones by document row."""
        found = search_exact(
            np.asarray(self.queries[rows]), self.documents, depth + SPARE, device=self.device
        ).indices
        return best_first(found, self.score(rows, found), depth)


def open_dense(
    config: DenseSearch,
    name: str,
    encoded: EncodedPairs,
    depth: int,
    *,
    cache: Path,
    seed: int,
    shard: Shard,
) -> CandidateSource:
    """Make a source of candidates of an encoded task; an index is built by the first rank."""
    report: dict[str, object] = {"kind": "dense", "model_hash": encoded.key}
    if config.index is None:
        return CandidateSource(name, config.quota, encoded.search, report | {"index": "exact"})
    approximate = _Approximate(encoded, config, depth, cache, seed, shard)
    recall, parameters = approximate.tune()
    console.print(f"{config.index} {parameters}: recall@{depth} {recall:.4f} of the exact search")
    report |= {
        "index": config.index,
        "index_parameters": parameters,
        "recall": round(recall, 6),
        "recall_depth": depth,
        "faiss_version": faiss.__version__,
    }
    return CandidateSource(name, config.quota, approximate.search, report)


@dataclass(frozen=True)
class _Approximate:
    encoded: EncodedPairs
    config: DenseSearch
    depth: int
    cache: Path
    seed: int
    shard: Shard

    @cached_property
    def index(self) -> Index:
        factory = self.config.index
        assert factory is not None
        documents = self.encoded.documents
        identity = f"{self.encoded.key} {factory} {self.seed} {faiss.__version__}".encode()
        digest = hashlib.sha256(identity)
        digest.update(np.ascontiguousarray(documents[:: max(1, len(documents) // 64)]).data)
        path = self.cache / "indices" / f"{digest.hexdigest()[:32]}-{len(documents)}.faiss"
        if not path.is_file() and self.shard.is_first:
            save_index(build_index(documents, factory, seed=self.seed), path)
        wait_for([path])
        return load_index(path)

    def tune(self) -> tuple[float, str]:
        """Double the effort until enough is found; return the recall and the parameters."""
        factory = self.config.index or ""
        parameter = next((name for part, name in TUNED.items() if part in factory), None)
        effort = 16
        depth = min(self.depth, len(self.encoded.documents))
        for _ in range(MOST_DOUBLINGS if parameter else 1):
            parameters = f"{parameter}={effort}" if parameter else ""
            if parameters:
                set_parameters(self.index, parameters)
            recall = measure_recall(
                self.index, self.encoded.queries, self.encoded.documents, depth, seed=self.seed
            )
            if recall >= self.config.min_recall:
                return recall, parameters
            effort *= 2
        raise UserError(
            "index",
            f"finds only {recall:.3f} of the exact results, less than min_recall",
            got=factory,
            cure="Choose a finer index, leave it out to search exactly, or lower min_recall",
        )

    def search(self, rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        queries = np.asarray(self.encoded.queries[rows])
        found = search_index(self.index, queries, depth + SPARE).indices
        return best_first(found, self.encoded.score(rows, found), depth)
