"""Candidates that share words with the query: BM25."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat

from embedtrain.data.batches import pad_rows
from embedtrain.mining.search import CandidateSource, best_rows
from embedtrain.mining.task import MiningTask
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
    b: NonNegativeFloat = 0.75
    """How much long documents are held back, 0 to 1."""
    stopwords: str | None = "en"
    """Language of the words passed over; null passes over none."""


def open_bm25(config: Bm25Search, name: str, task: MiningTask) -> CandidateSource:
    """Index the documents of a task, in memory."""
    import bm25s  # imports half a second of packages, only where it is used

    def tokens(texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = bm25s.tokenize(
            texts, stopwords=config.stopwords or [], return_ids=False, show_progress=False
        )
        return words

    index = bm25s.BM25(k1=config.k1, b=config.b)
    # Ids in order of first use: those of bm25s follow a set, whose order changes with the hash seed.
    vocabulary: dict[str, int] = {}
    ids = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in text]
        for text in tokens(task.documents)
    ]
    index.index((ids, vocabulary), create_empty_token=True, show_progress=False)

    def search(rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        found = []
        for query in tokens([task.queries[row] for row in rows.tolist()]):
            known = [word for word in query if word in vocabulary]
            scores = index.get_scores(known) if known else np.zeros(len(task.documents))
            found.append(best_rows(scores.astype(np.float32), depth))
        return pad_rows(found)

    report = {"kind": "bm25", "bm25s_version": bm25s.__version__, "k1": config.k1, "b": config.b}
    return CandidateSource(name, config.quota, search, report)
