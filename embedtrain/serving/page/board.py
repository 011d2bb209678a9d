"""Documents that the page searches, and each way to search them."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.retrieval.compression import Compression
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.search import Vectors, for_many_searches, search
from embedtrain.serving.answers import is_normalized
from embedtrain.serving.desk import Desk
from embedtrain.serving.scoring import together
from embedtrain.serving.served import ServedCrossEncoder, ServedEncoder, Vector

KEPT = 4
"""Sets of typed documents whose vectors are kept."""
RERANKED = 50
"""Documents that a cross-encoder reads of a query: those that BM25 finds first."""
Mode = Literal["float", "int8", "binary", "rerank", "words"]
MODES: dict[Mode, str] = {"float": "", "int8": "bytes", "binary": "bits"}


@dataclass(frozen=True)
class Choice:
    """A way to search: a model and how its vectors are stored, or BM25."""

    key: str
    label: str
    number: int | None
    mode: Mode
    dim: int | None = None


@dataclass(eq=False)
class Collection:
    """Documents; what each model and choice makes of them is kept."""

    texts: list[str]
    ids: list[str]
    vectors: dict[int, Any] = field(default_factory=dict)
    indices: dict[str, Any] = field(default_factory=dict)

    def words(self) -> Bm25Index:
        """Return the documents indexed by their words."""
        if "words" not in self.indices:
            self.indices["words"] = Bm25Index(Bm25Search(), self.texts)
        found: Bm25Index = self.indices["words"]
        return found


@dataclass(frozen=True)
class Found:
    """The best documents of a query: rows of a collection with their scores, and the query's own vector or vectors."""

    rows: list[int]
    scores: list[float]
    query: Vector | None = None


class Board:
    """Searches collections by any choice.

    Args:
        desk: Computes vectors and scores.
        corpus: Documents that are always there; None where visitors type all.
    """

    def __init__(self, desk: Desk, corpus: Collection | None = None) -> None:
        self.desk, self.corpus = desk, corpus
        self.choices = list_choices(desk)
        self._typed: OrderedDict[tuple[str, ...], Collection] = OrderedDict()

    def collection(self, texts: Sequence[str]) -> Collection | None:
        """Return the documents that a visitor typed; without any, those that are always there, if there are."""
        if not texts:
            return self.corpus
        key = tuple(texts)
        if key not in self._typed:
            numbers = [str(number) for number in range(1, len(key) + 1)]
            self._typed[key] = Collection(list(key), numbers)
        self._typed.move_to_end(key)
        while len(self._typed) > KEPT:
            self._typed.popitem(last=False)
        return self._typed[key]

    async def find(self, documents: Collection, choice: Choice, query: str, top: int) -> Found:
        """Return the best documents of a query.

        Raises:
            Refusal: If a text cannot be encoded, or too much waits.
        """
        if choice.number is None:
            return _listed(await self._by_words(documents, query, top))
        if choice.mode == "rerank":
            return await self._reranked(documents, choice.number, query, top)
        number = choice.number
        if number not in documents.vectors:
            computed = await self.desk.encode(number, documents.texts, "document")
            documents.vectors[number] = together(computed.results)
        asked = (await self.desk.encode(number, [query], "query")).results[0]
        found = await self.desk.aside(
            lambda: self._searched(documents, choice, together([asked]), top)
        )
        return _listed(found, asked)

    async def _by_words(self, documents: Collection, query: str, top: int) -> SearchResult:
        return await self.desk.aside(lambda: documents.words().search([query], top))

    async def _reranked(self, documents: Collection, number: int, query: str, top: int) -> Found:
        first = _listed(await self._by_words(documents, query, RERANKED)).rows
        left = [row for row in range(len(documents.texts)) if row not in set(first)]
        rows = (first + left)[:RERANKED]
        texts = [documents.texts[row] for row in rows]
        scores = np.asarray((await self.desk.score(number, query, texts)).results)
        order = np.argsort(-scores, kind="stable")[:top].tolist()
        return Found([rows[one] for one in order], scores[order].tolist())

    def _searched(
        self,
        documents: Collection,
        choice: Choice,
        query: Vectors,
        top: int,
    ) -> SearchResult:
        assert choice.number is not None
        served = self.desk.models[choice.number]
        vectors, model = documents.vectors[choice.number], served.model
        interaction = interaction_of(model)
        top = min(top, len(documents.texts))
        if choice.mode == "float" and choice.dim is None:
            if choice.key not in documents.indices:
                near = for_many_searches(vectors, interaction, model.device)
                documents.indices[choice.key] = near
            return search(query, documents.indices[choice.key], top, interaction, model.device)
        assert isinstance(served, ServedEncoder)
        quantize = None if choice.mode == "float" else choice.mode
        stored = Compression.model_validate({"dim": choice.dim, "quantize": quantize})
        normalized = is_normalized(served)
        if choice.key not in documents.indices:
            cut = stored.cut(vectors, normalized=normalized)
            documents.indices[choice.key] = stored.index(cut)
        found: SearchResult = documents.indices[choice.key].search(
            stored.cut(query, normalized=normalized), top
        )
        return found


def list_choices(desk: Desk) -> list[Choice]:
    """Return each way to search with some models: stored as numbers, bytes and bits, cut, and by words."""
    found: list[Choice] = []
    for number, served in enumerate(desk.models):
        if isinstance(served, ServedCrossEncoder):
            label = f"{served.name}, reading BM25's first {RERANKED}"
            found.append(Choice(f"{number}:rerank", label, number, "rerank"))
            continue
        found.append(Choice(f"{number}:float", served.name, number, "float"))
        model = served.model
        if not isinstance(model, DenseEncoder) or interaction_of(model) is not None:
            continue
        for mode, told in MODES.items():
            if told:
                label = f"{served.name}, as {told}"
                found.append(Choice(f"{number}:{mode}", label, number, mode))
        sizes = desk.settings.dimensions
        for dim in (one for one in sizes if isinstance(one, int) and one < model.dim):
            label = f"{served.name}, {dim} dimensions"
            found.append(Choice(f"{number}:{dim}", label, number, "float", dim))
    return [*found, Choice("words", "BM25 (words)", None, "words")]


def _listed(found: SearchResult, query: Vector | None = None) -> Found:
    rows, scores = found.indices[0].tolist(), found.scores[0].tolist()
    kept = [(row, score) for row, score in zip(rows, scores, strict=True) if row >= 0]
    return Found([row for row, _ in kept], [score for _, score in kept], query)
