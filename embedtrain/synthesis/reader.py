"""Who reads in the round trip: BM25, the base model, or the fusion of both."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from embedtrain.encoding.cache import Vectors, embed_once, model_key
from embedtrain.encoding.texts import encode_texts
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import Precision
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.fusion import Fusion, fuse
from embedtrain.retrieval.search import for_many_searches, search
from embedtrain.synthesis.round_trip import Reader
from embedtrain.synthesis.settings import RoundTrip

DEPTH = 100
"""Results of each system that are fused."""


class QueryVectors:
    """Vectors of queries, each computed once."""

    def __init__(self, model: TextEncoder, cache: Path, precision: Precision) -> None:
        self.model, self.cache, self.precision = model, cache, precision
        self.key = model_key(model)
        self._rows: dict[str, int] = {}
        self._kept: Float32[np.ndarray, "queries dim"] | None = None

    def embed(self, queries: Sequence[str]) -> Float32[np.ndarray, "queries dim"] | None:
        """Return the vectors of queries, and keep them for those who ask for some of them; None if one is not a vector."""
        different = list(dict.fromkeys(queries))
        kept = embed_once(
            self.model, self.key, different, "query", self.cache, precision=self.precision
        )
        if not isinstance(kept, np.ndarray):
            return None
        self._rows = {query: row for row, query in enumerate(different)}
        self._kept = kept
        return np.asarray(kept[[self._rows[query] for query in queries]])

    def look_up(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of queries of the last :meth:`embed`, or compute them."""
        if self._kept is not None and all(query in self._rows for query in queries):
            return np.asarray(self._kept[[self._rows[query] for query in queries]])
        return encode_texts(self.model, queries, "query", precision=self.precision)


def open_reader(
    settings: RoundTrip, texts: Sequence[str], vectors: QueryVectors | None, cache: Path
) -> Reader | None:
    """Index the texts; None where nobody is to be asked. ``vectors`` is needed for all but BM25."""
    if settings.reader is None:
        return None
    systems: list[Reader] = []
    if settings.reader != "base":
        systems.append(Bm25Index(Bm25Search(), texts).search)
    if settings.reader != "bm25":
        assert vectors is not None
        systems.append(_dense(texts, vectors, cache))
    if len(systems) == 1:
        return systems[0]

    def fused(queries: Sequence[str], num_results: int) -> SearchResult:
        depth = max(DEPTH, num_results)
        return fuse([system(queries, depth) for system in systems], Fusion(), num_results)

    return fused


def _dense(texts: Sequence[str], vectors: QueryVectors, cache: Path) -> Reader:
    model = vectors.model
    kept = embed_once(model, vectors.key, texts, "document", cache, precision=vectors.precision)
    interaction = interaction_of(model)
    documents = for_many_searches(kept, interaction, model.device)

    def find(queries: Sequence[str], num_results: int) -> SearchResult:
        return search(vectors.look_up(queries), documents, num_results, interaction, model.device)

    return find
