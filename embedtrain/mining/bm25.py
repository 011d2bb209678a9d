"""Candidates that share words with the query: BM25."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, field_validator

from embedtrain.errors import UserError, missing_extra
from embedtrain.mining.search import CandidateSource, best_rows
from embedtrain.mining.task import MiningTask
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.section import Section


class Bm25Search(Section):
    """Candidates by BM25; only documents that share a word with the query.

    Source: Robertson & Zaragoza (2009), https://doi.org/10.1561/1500000019; computed by ``bm25s``.
    """

    kind: Literal["bm25"] = "bm25"
    quota: PositiveFloat = 1.0
    """Share of the candidates, relative to the other sources'."""
    k1: PositiveFloat = 1.2
    """How soon repeating a word stops to count."""
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    """How much long documents are held back, 0 to 1."""
    stopwords: str | None = "en"
    """Language of the words passed over; null passes over none."""
    stemmer: str | None = None
    """Language whose Snowball stemmer cuts words to their stems, as english; null keeps them whole. Needs PyStemmer."""

    @field_validator("stopwords")
    @classmethod
    def _knows_language(cls, language: str | None) -> str | None:
        if language and language != "en":
            import bm25s

            try:
                bm25s.tokenize([""], stopwords=language, return_ids=False, show_progress=False)
            except ValueError:
                raise ValueError("there are no stopwords of this language") from None
        return language


class Bm25Index:
    """Documents indexed by their words, in memory."""

    def __init__(self, config: Bm25Search, documents: Sequence[str]) -> None:
        import bm25s  # imports half a second of packages, only where it is used

        self.config, self.num_documents = config, len(documents)
        self.version: str = bm25s.__version__
        self.index = bm25s.BM25(k1=config.k1, b=config.b)
        # Ids in order of first use: those of bm25s follow a set, whose order changes with the hash seed.
        self.vocabulary: dict[str, int] = {}
        ids = [
            [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in text]
            for text in self._words(documents)
        ]
        self.index.index((ids, self.vocabulary), create_empty_token=True, show_progress=False)

    @property
    def num_bytes(self) -> int:
        """Bytes of the scores of words in documents, and where each word's are."""
        parts = self.index.scores.values()
        return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))

    def scores(self, queries: Sequence[str]) -> Iterator[Float32[np.ndarray, " documents"]]:
        """Yield the scores of all documents for each query."""
        for query in self._words(queries):
            known = [word for word in query if word in self.vocabulary]
            found = self.index.get_scores(known) if known else np.zeros(self.num_documents)
            yield found.astype(np.float32)

    def search(self, queries: Sequence[str], num_results: int) -> SearchResult:
        """Return the best documents that share a word with each query, best first."""
        result = SearchResult.empty(len(queries), min(num_results, self.num_documents))
        for row, scores in enumerate(self.scores(queries)):
            best = best_rows(scores, num_results)
            result.indices[row, : len(best)] = best
            result.scores[row, : len(best)] = scores[best]
        return result

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        import bm25s

        words: list[list[str]] = bm25s.tokenize(
            list(texts),
            stopwords=self.config.stopwords or [],
            stemmer=None if self.config.stemmer is None else _open_stemmer(self.config.stemmer),
            return_ids=False,
            show_progress=False,
        )
        return words


def _open_stemmer(language: str) -> object:
    try:
        import Stemmer
    except ImportError:
        raise missing_extra("PyStemmer", "stemmer", "to cut words to their stems") from None
    if language not in Stemmer.algorithms():
        cure = f"Use {', '.join(Stemmer.algorithms())}"
        raise UserError("stemmer", "is of no such language", got=language, cure=cure)
    return Stemmer.Stemmer(language)


def open_bm25(config: Bm25Search, name: str, task: MiningTask) -> CandidateSource:
    """Index the documents of a task, in memory."""
    index = Bm25Index(config, task.chunks)

    def search(rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        return index.search([task.queries[row] for row in rows.tolist()], depth).indices

    report = {"kind": "bm25", "bm25s_version": index.version, "k1": config.k1, "b": config.b}
    if config.stemmer is not None:
        report["stemmer"] = config.stemmer
    return CandidateSource(name, config.quota, search, report)
