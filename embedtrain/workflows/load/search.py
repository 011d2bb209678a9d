"""Workflow: a model's queries are answered by a collection that it was loaded into."""

from contextlib import AbstractContextManager
from types import TracebackType

import numpy as np

from embedtrain.encoding.pair_cache import score_once
from embedtrain.encoding.pair_scorers import PairScorer
from embedtrain.encoding.texts import encode_texts
from embedtrain.engines.engine import Found
from embedtrain.engines.open import open_engine
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.second_stage import reorder
from embedtrain.models.build import load_encoder
from embedtrain.precision import Precision
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.workflows.load.collection import field_of
from embedtrain.workflows.search import RERANKED, Hit


class EngineSearcher(AbstractContextManager["EngineSearcher"]):
    """A model and a collection that holds its vectors; use it as a context.

    Args:
        model: Model folder, run's ``model/`` or Hub id.
        url: Of the collection.
        instruction: Name of one of the model's; it may change what is put before queries, not before documents.
        precision: What the network computes in.
        second: What orders the first results anew, if anything does.
        depth: How many of them.

    Raises:
        UserError: If the engine is down, there is no such collection, it is half filled, or its vectors are of
            another model.
    """

    def __init__(
        self,
        model: str,
        url: str,
        instruction: str | None = None,
        precision: Precision = "auto",
        second: PairScorer | None = None,
        depth: int = RERANKED,
    ) -> None:
        self.precision, self.second, self.depth = precision, second, depth
        self.model = load_encoder(model)
        self._opened = open_engine(url)
        self.engine = self._opened.__enter__()
        try:
            self.field = field_of(self.engine, self.model, model)
            self.num_documents = self.engine.count()
            if instruction is not None:
                self._take_instruction(model, instruction)
        except BaseException:
            self._opened.__exit__(None, None, None)
            raise

    def _take_instruction(self, model: str, instruction: str) -> None:
        asked = load_encoder(model, instruction=instruction)
        sides = [one.tokenization.fingerprint("document") for one in (self.model, asked)]
        if sides[0] != sides[1]:
            raise UserError(
                "--instruction", "also changes documents, which are loaded without it", got=instruction,
                cure="Leave it out",
            )  # fmt: skip
        self.model = asked

    def search(self, query: str, num_results: int = 5) -> list[Hit]:
        """Return the best documents for a query, best first; with a second stage in its order, by its scores."""
        wanted = num_results if self.second is None else max(num_results, self.depth)
        vectors = encode_texts(self.model, [query], "query", precision=self.precision)
        [found] = self.engine.search(self.field, vectors, wanted)
        if self.second is not None:
            found = self._reordered(query, found)
        return [
            Hit(rank, one.score, one.id, one.text or "")
            for rank, one in enumerate(found[:num_results], 1)
        ]

    def _reordered(self, query: str, found: list[Found]) -> list[Found]:
        assert self.second is not None
        pairs = [(query, one.text) for one in found[: self.depth] if one.text is not None]
        if len(pairs) < len(found[: self.depth]):
            raise UserError(
                "--rerank", f"reads texts, and {self.engine.place} has none", cure="Load it without --no-text"
            )  # fmt: skip
        if not pairs:
            return found
        first = np.array([[one.score for one in found]], np.float32)
        result = SearchResult(np.arange(len(found), dtype=np.int64)[None], first)
        scores = score_once(self.second, pairs, "--rerank", None).scores
        ordered = reorder(result, np.asarray(scores, np.float32)[None], len(pairs))
        return [
            Found(found[place].id, float(score), found[place].text)
            for place, score in zip(ordered.indices[0].tolist(), ordered.scores[0], strict=True)
        ]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the engine."""
        self._opened.__exit__(kind, error, trace)
