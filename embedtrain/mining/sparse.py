"""Candidates from a sparse model: its inverted lists, or an index of measured recall."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from embedtrain.mining.indexed import ModelSearch, open_index
from embedtrain.mining.search import SPARE, CandidateSource, best_first
from embedtrain.progress import console
from embedtrain.retrieval.dense.faiss_index import sample_rows
from embedtrain.retrieval.indexes import SparseSearch, build, recall_of
from embedtrain.retrieval.sparse.exact import InvertedIndex, InvertedSearch
from embedtrain.sparse_vectors import SparseVectors

SAMPLED = 200
"""Queries on which the recall of an index is measured, at most."""


class WordsSearch(ModelSearch):
    """Candidates that share the weightiest words with the query under a sparse model."""

    kind: Literal["sparse"] = "sparse"
    index: SparseSearch = InvertedSearch()
    """``{name: exact}``, or another kind of index."""


@dataclass(frozen=True)
class EncodedSparse:
    """The queries and documents of a task under a sparse model: searches, and scores any pair."""

    key: str
    queries: SparseVectors
    documents: SparseVectors
    device: str = "cpu"

    @cached_property
    def lists(self) -> InvertedIndex:
        """The inverted lists of the documents."""
        return InvertedIndex.of(self.documents)

    def score(
        self, rows: NDArray[np.int64], documents: Int64[np.ndarray, "queries candidates"]
    ) -> Float64[np.ndarray, "queries candidates"]:
        """Score each query with each of its candidates, in float64; -inf for unused places."""
        scores = np.full(documents.shape, -np.inf)
        for number, (row, chosen) in enumerate(zip(rows.tolist(), documents, strict=True)):
            used = chosen >= 0
            query = self.queries.part(row, row + 1).dense()[0].astype(np.float64)
            scores[number, used] = self.documents.select(chosen[used]).matrix() @ query
        return scores

    def search(self, rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        """Search exactly; ordered by scores in float64, equal ones by document row."""
        found = self.lists.search(self.queries.select(rows), depth + SPARE).indices
        return best_first(found, self.score(rows, found), depth)


def open_sparse(
    config: WordsSearch, name: str, encoded: EncodedSparse, depth: int, seed: int
) -> CandidateSource:
    """Make a source of candidates of an encoded task; every rank builds its own index."""
    report: dict[str, object] = {"kind": "sparse", "model_hash": encoded.key}
    if isinstance(config.index, InvertedSearch):
        return CandidateSource(name, config.quota, encoded.search, report | {"index": "exact"})
    index = build(encoded.documents, config.index).index
    deepest = min(depth, len(encoded.documents))
    sample = encoded.queries.select(sample_rows(len(encoded.queries), SAMPLED, seed))
    recall = recall_of(index, sample, encoded.documents, (deepest,))[deepest]
    console.print(f"{config.index.name}: recall@{deepest} {recall:.4f} of the exact search")

    def find(rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        return index.search(encoded.queries.select(rows), depth).indices

    report |= {"index": config.index.model_dump_json(), "recall_depth": deepest}
    return open_index(config, name, encoded, find, report, kind=config.index.name, recall=recall)
