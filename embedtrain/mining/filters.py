"""What keeps false negatives out: known positives, copies of them, and those that score too high."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from embedtrain.data.batches import pad_rows
from embedtrain.mining.candidates import Candidates, Reason
from embedtrain.mining.identity import text_digest
from embedtrain.mining.settings import MiningConfig, makes_positives
from embedtrain.mining.task import MiningTask

ScorePairs = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
"""Scores each query of some rows with each of its candidates, -inf for unused places."""
ScoreTexts = Callable[[Sequence[tuple[str, str]]], NDArray[np.float64]]
"""Gives (query, document) pairs a probability of being relevant."""


@dataclass(frozen=True)
class Filters:
    """All that speaks against a candidate.

    Attributes:
        config: Rules and thresholds.
        task: Queries, documents, positives.
        identities: Row of the first document with the same text, for each document.
        clusters: Row of the first document that it nearly repeats, for each document.
        guarded: Identities that answer a guarded query.
        teacher: Scores of the model that mines.
        guide: Scores of a second model.
        cross_encoder: Probability of relevance, for few pairs.
    """

    config: MiningConfig
    task: MiningTask
    identities: Int64[np.ndarray, " documents"]
    clusters: Int64[np.ndarray, " documents"]
    guarded: Int64[np.ndarray, " guarded"]
    teacher: ScorePairs
    guide: ScorePairs | None = None
    cross_encoder: ScoreTexts | None = None

    @cached_property
    def rows_of_text(self) -> dict[bytes, list[int]]:
        """Identities by the digest of their texts alone: chunks of several documents may say the same."""
        found: dict[bytes, list[int]] = {}
        for row in np.unique(self.identities).tolist():
            found.setdefault(text_digest(self.task.chunks[row]), []).append(row)
        return found

    def positive_scores(
        self, rows: Int64[np.ndarray, " queries"], score: ScorePairs
    ) -> tuple[Float64[np.ndarray, "queries positives"], Float64[np.ndarray, " queries"]]:
        """Return the scores of each query's positives and the lowest of them."""
        scores = score(rows, pad_rows([self.task.positives[row] for row in rows.tolist()]))
        return scores, np.where(np.isneginf(scores), np.inf, scores).min(axis=1)

    def apply(
        self,
        candidates: Candidates,
        rows: Int64[np.ndarray, " queries"],
        lowest: Float64[np.ndarray, " queries"],
    ) -> Float64[np.ndarray, "queries candidates"]:
        """Score the candidates and note reasons against them; return the cross-encoder's probabilities.

        They are NaN where the cross-encoder was not asked.
        """
        candidates.scores[:] = self.teacher(rows, candidates.documents)
        self._reject_known(candidates, rows)
        below = candidates.ranks <= self.config.skip_ranks
        candidates.reject(np.broadcast_to(below, candidates.documents.shape), Reason.RANK)
        thresholds = self.config.rule.thresholds(lowest)[:, None]
        probabilities = np.full(candidates.documents.shape, np.nan)
        too_high = candidates.scores >= thresholds
        check = self.config.cross_encoder
        if self.cross_encoder is not None and check is not None:
            near = np.abs(candidates.scores - thresholds) <= check.near
            asked = (near | makes_positives(self.config)) & (candidates.reasons == Reason.KEPT)
            probabilities[asked] = self._ask(self.cross_encoder, candidates, rows, asked)
            too_high &= ~asked
        candidates.reject(too_high, Reason.SCORE)
        if check is not None:
            if check.positive is not None:
                candidates.reject(probabilities >= check.positive, Reason.NEW_POSITIVE)
            candidates.reject(probabilities > check.maximum, Reason.CROSS_ENCODER)
        if self.guide is not None and self.config.guide is not None:
            lowest_guide = self.positive_scores(rows, self.guide)[1][:, None]
            kept = np.where(candidates.reasons == Reason.KEPT, candidates.documents, -1)
            above = self.guide(rows, kept) > lowest_guide - self.config.guide.margin
            candidates.reject(above, Reason.GUIDE)
        return probabilities

    def doubted(self, rows: Int64[np.ndarray, " queries"]) -> list[list[int]]:
        """Return each query's positives that the cross-encoder would take for negatives, where it makes positives."""
        check = self.config.cross_encoder
        own = [self.task.positives[row].tolist() for row in rows.tolist()]
        if self.cross_encoder is None or check is None or not makes_positives(self.config):
            return [[] for _ in own]
        pairs = [
            (self.task.queries[row], self.task.chunks[document])
            for row, documents in zip(rows.tolist(), own, strict=True)
            for document in documents
        ]
        low = iter((self.cross_encoder(pairs) <= check.maximum).tolist())
        return [[document for document in documents if next(low)] for documents in own]

    def _reject_known(self, candidates: Candidates, rows: Int64[np.ndarray, " queries"]) -> None:
        documents = candidates.documents
        identities, clusters = self.identities[documents], self.clusters[documents]
        positive = np.zeros(documents.shape, dtype=bool)
        duplicate = np.zeros(documents.shape, dtype=bool)
        equal = np.zeros(documents.shape, dtype=bool)
        for number, row in enumerate(rows.tolist()):
            own = self.task.positives[row]
            positive[number] = np.isin(documents[number], own)
            duplicate[number] = np.isin(identities[number], self.identities[own])
            duplicate[number] |= np.isin(clusters[number], self.clusters[own])
            same = self.rows_of_text.get(text_digest(self.task.queries[row]), [])
            equal[number] = np.isin(identities[number], same)
        candidates.reject(positive, Reason.POSITIVE)
        candidates.reject(duplicate, Reason.DUPLICATE)
        candidates.reject(equal, Reason.EQUALS_QUERY)
        candidates.reject(np.isin(identities, self.guarded), Reason.GUARDED)

    def _ask(
        self,
        cross_encoder: ScoreTexts,
        candidates: Candidates,
        rows: Int64[np.ndarray, " queries"],
        asked: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        numbers, columns = asked.nonzero()
        documents = candidates.documents[numbers, columns]
        return cross_encoder(
            [
                (self.task.queries[row], self.task.chunks[document])
                for row, document in zip(rows[numbers].tolist(), documents.tolist(), strict=True)
            ]
        )
