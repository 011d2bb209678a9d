"""Candidates from a late-interaction model: exact MaxSim, or an index of measured recall."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from embedtrain.mining.indexed import ModelSearch, open_index
from embedtrain.mining.search import SPARE, CandidateSource, best_first
from embedtrain.ops.similarity import all_scores
from embedtrain.progress import console
from embedtrain.retrieval.late_interaction.exact import ExactIndex, ExactSearch
from embedtrain.retrieval.late_interaction.indexes import (
    LateInteractionSearch,
    build_late_interaction_index,
)
from embedtrain.types import TokenEmbeddings, TokenVectors


class TokensSearch(ModelSearch):
    """Candidates nearest to the query under a late-interaction model."""

    kind: Literal["late_interaction"] = "late_interaction"
    index: LateInteractionSearch = ExactSearch()
    """``{name: exact}``, or another kind of index."""


@dataclass(frozen=True)
class EncodedTokens:
    """The queries and documents of a task under a late-interaction model: searches, and scores any pair."""

    key: str
    queries: TokenVectors
    documents: TokenVectors
    device: str = "cpu"

    def score(
        self, rows: NDArray[np.int64], documents: Int64[np.ndarray, "queries candidates"]
    ) -> Float64[np.ndarray, "queries candidates"]:
        """Score each query with each of its candidates, in float64; -inf for unused places."""
        scores = np.full(documents.shape, -np.inf)
        for number, (row, chosen) in enumerate(zip(rows.tolist(), documents, strict=True)):
            used = chosen >= 0
            query = _double(self.queries.part(row, row + 1).tensors())
            found = _double(self.documents.select(chosen[used]).tensors())
            if used.any():
                scores[number, used] = all_scores(query, found)[0].numpy()
        return scores

    def search(self, rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        """Search exactly; ordered by scores in float64, equal ones by document row."""
        index = ExactIndex(self.documents, device=self.device)
        found = index.search(self.queries.select(rows), depth + SPARE).indices
        return best_first(found, self.score(rows, found), depth)


def open_late_interaction(
    config: TokensSearch, name: str, encoded: EncodedTokens, depth: int, seed: int
) -> CandidateSource:
    """Make a source of candidates of an encoded task; every rank builds its own index."""
    report: dict[str, object] = {"kind": "late_interaction", "model_hash": encoded.key}
    if isinstance(config.index, ExactSearch):
        return CandidateSource(name, config.quota, encoded.search, report | {"index": "exact"})
    index, measured = build_late_interaction_index(
        encoded.documents,
        config.index,
        queries=encoded.queries,
        num_results=min(depth, len(encoded.documents)),
        seed=seed,
        device=encoded.device,
    )
    console.print(str(measured))

    def find(rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        return index.search(encoded.queries.select(rows), depth).indices

    report |= {"index": config.index.model_dump_json(), "recall_depth": measured.num_results}
    return open_index(
        config, name, encoded, find, report, kind=measured.kind, recall=measured.recall
    )


def _double(vectors: TokenEmbeddings) -> TokenEmbeddings:
    cls = None if vectors.cls is None else vectors.cls.double()
    return replace(vectors, tokens=vectors.tokens.double(), cls=cls)
