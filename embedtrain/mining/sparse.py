"""Candidates from a sparse model: its inverted lists, or an index of measured recall."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from embedtrain.errors import UserError
from embedtrain.mining.search import SPARE, CandidateSource, best_first
from embedtrain.progress import console
from embedtrain.retrieval.dense.faiss_index import sample_rows
from embedtrain.retrieval.indexes import SparseSearch, build, recall_of
from embedtrain.retrieval.sparse.exact import InvertedIndex, InvertedSearch
from embedtrain.section import Section
from embedtrain.sparse_vectors import SparseVectors

SAMPLED = 200
"""Queries on which the recall of an index is measured, at most."""


class WordsSearch(Section):
    """Candidates that share the weightiest words with the query under a sparse model."""

    kind: Literal["sparse"] = "sparse"
    model: str | None = None
    """Model folder or Hub id; null is the teacher, the model given to the command."""
    quota: PositiveFloat = 1.0
    """Share of the candidates, relative to the other sources'."""
    index: SparseSearch = InvertedSearch()
    """``{name: exact}``, or another kind of index."""
    min_recall: float = Field(default=0.95, ge=0, le=1)
    """Of the exact results at ``depth``; an index that finds less is refused."""


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
    if recall < config.min_recall:
        raise UserError(
            "index",
            f"finds only {recall:.3f} of the exact results, less than min_recall",
            got=config.index.name,
            cure="Give it more effort, search exactly, or lower min_recall",
        )

    def search(rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        found = index.search(encoded.queries.select(rows), depth + SPARE).indices
        return best_first(found, encoded.score(rows, found), depth)

    report |= {
        "index": config.index.model_dump_json(),
        "recall": round(recall, 6),
        "recall_depth": deepest,
    }
    return CandidateSource(name, config.quota, search, report)
