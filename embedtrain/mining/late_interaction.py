"""Candidates from a late-interaction model: exact MaxSim, or an index of measured recall."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from embedtrain.errors import UserError
from embedtrain.mining.search import SPARE, CandidateSource, best_first
from embedtrain.ops.similarity import all_scores
from embedtrain.progress import console
from embedtrain.retrieval.late_interaction.exact import ExactIndex, ExactSearch
from embedtrain.retrieval.late_interaction.indexes import (
    LateInteractionSearch,
    build_late_interaction_index,
)
from embedtrain.section import Section
from embedtrain.types import TokenEmbeddings, TokenVectors


class TokensSearch(Section):
    """Candidates nearest to the query under a late-interaction model."""

    kind: Literal["late_interaction"] = "late_interaction"
    model: str | None = None
    """Model folder or Hub id; null is the teacher, the model given to the command."""
    quota: PositiveFloat = 1.0
    """Share of the candidates, relative to the other sources'."""
    index: LateInteractionSearch = ExactSearch()
    """``{name: exact}``, or another kind of index."""
    min_recall: float = Field(default=0.95, ge=0, le=1)
    """Of the exact results at ``depth``; an index that finds less is refused."""


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
    if measured.recall < config.min_recall:
        raise UserError(
            "index",
            f"finds only {measured.recall:.3f} of the exact results, less than min_recall",
            got=measured.kind,
            cure="Give it more effort, search exactly, or lower min_recall",
        )

    def search(rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        found = index.search(encoded.queries.select(rows), depth + SPARE).indices
        return best_first(found, encoded.score(rows, found), depth)

    report |= {
        "index": config.index.model_dump_json(),
        "recall": round(measured.recall, 6),
        "recall_depth": measured.num_results,
    }
    return CandidateSource(name, config.quota, search, report)


def _double(vectors: TokenEmbeddings) -> TokenEmbeddings:
    cls = None if vectors.cls is None else vectors.cls.double()
    return replace(vectors, tokens=vectors.tokens.double(), cls=cls)
