"""From queries to negatives, a block of queries at a time; nothing grows with the number of queries."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from embedtrain.data.batches import pad_rows
from embedtrain.mining.candidates import Candidates, Reason, join_sources, merge_survivors
from embedtrain.mining.filters import Filters
from embedtrain.mining.search import CandidateSource
from embedtrain.mining.settings import query_generator

SUSPECTS_PER_QUERY = 2
SUSPICIOUS = (Reason.SCORE, Reason.GUIDE, Reason.CROSS_ENCODER)
DECIMALS = 6
RANDOM = "random"


class Scored(TypedDict):
    """A positive."""

    id: str
    score: float


class NewPositive(Scored):
    """A document without a judgment that the cross-encoder calls relevant, with its probability ``ce``."""

    ce: float


class Negative(Scored):
    """A negative; ``rank`` is its rank in its source, ``ce`` the cross-encoder's probability."""

    rank: int | None
    source: str
    ce: float | None


class Suspect(Scored):
    """A candidate that was kept out as a suspected false negative."""

    reason: str


class Rejected(Suspect):
    """A suspect with its rank in its source, for a judge to look at."""

    rank: int
    source: str


class MinedQuery(TypedDict):
    """One line of the output, before the suspects are taken out.

    ``doubted`` are positives that the cross-encoder would take for negatives; they stay. ``rejected`` is there where
    the settings ask for it.
    """

    qid: str
    pos: list[Scored]
    new_pos: list[NewPositive]
    doubted: list[str]
    neg: list[Negative]
    dropped: dict[str, int]
    suspects: list[Suspect]
    rejected: NotRequired[list[Rejected]]


@dataclass(frozen=True)
class Block:
    """Queries, their candidates and all scores."""

    rows: Int64[np.ndarray, " queries"]
    candidates: Candidates
    positives: Float64[np.ndarray, "queries positives"]
    lowest: Float64[np.ndarray, " queries"]
    probabilities: Float64[np.ndarray, "queries candidates"]


@dataclass(frozen=True)
class Miner:
    """Searches, filters, merges and samples."""

    sources: Sequence[CandidateSource]
    filters: Filters

    def mine(self, rows: Int64[np.ndarray, " queries"]) -> list[MinedQuery]:
        """Return the negatives of the queries at ``rows``, whatever other queries there are."""
        filters, config = self.filters, self.filters.config
        found = [source.search(rows, config.depth) for source in self.sources]
        positives, lowest = filters.positive_scores(rows, filters.teacher)
        candidates = join_sources(found)
        probabilities = filters.apply(candidates, rows, lowest)
        block = Block(rows, candidates, positives, lowest, probabilities)
        mined = [self._mined(block, number) for number in range(len(rows))]
        for query, documents in zip(mined, filters.doubted(rows), strict=True):
            query["doubted"] = [filters.task.document_ids[document] for document in documents]
        if config.shortfall == "random_fill":
            self._fill_at_random(block, mined)
        if config.shortfall == "repeat":
            for query in mined:
                own = query["neg"]
                missing = config.num_negatives - len(own) if own else 0
                query["neg"] = own + [own[place % len(own)] for place in range(missing)]
        return mined

    def _mined(self, block: Block, number: int) -> MinedQuery:
        config, task = self.filters.config, self.filters.task
        candidates, row = block.candidates, int(block.rows[number])
        quotas = [source.quota for source in self.sources]
        survivors = merge_survivors(candidates, number, quotas, self.filters.identities)
        generator = query_generator(config.seed, config.epoch, task.query_ids[row])
        scores, lowest = candidates.scores[number, survivors], float(block.lowest[number])
        chosen = config.sampling.choose(scores, lowest, config.num_negatives, generator)
        own = zip(task.positives[row].tolist(), block.positives[number].tolist(), strict=False)
        mined = MinedQuery(
            qid=task.query_ids[row],
            pos=[Scored(id=task.document_ids[d], score=round(s, DECIMALS)) for d, s in own],
            new_pos=self._new_positives(block, number),
            doubted=[],
            neg=[self._negative(block, number, column) for column in survivors[chosen].tolist()],
            dropped=_count_reasons(candidates, number),
            suspects=self._suspects(candidates, number),
        )
        if config.num_rejected:
            mined["rejected"] = self._rejected(candidates, number)
        return mined

    def _negative(self, block: Block, number: int, column: int) -> Negative:
        candidates = block.candidates
        probability = float(block.probabilities[number, column])
        return Negative(
            id=self.filters.task.document_ids[candidates.documents[number, column]],
            score=round(float(candidates.scores[number, column]), DECIMALS),
            rank=int(candidates.ranks[column]),
            source=self.sources[candidates.sources[column]].name,
            ce=None if np.isnan(probability) else round(probability, DECIMALS),
        )

    def _new_positives(self, block: Block, number: int) -> list[NewPositive]:
        """Return the documents that the cross-encoder calls relevant, the most probable first, each text once."""
        check, candidates = self.filters.config.cross_encoder, block.candidates
        columns = np.flatnonzero(candidates.reasons[number] == Reason.NEW_POSITIVE)
        if check is None or len(columns) == 0:
            return []
        documents, found = candidates.documents[number], block.probabilities[number]
        texts = self.filters.identities[documents]
        order = columns[np.lexsort((documents[columns], -found[columns]))]
        first = {int(texts[column]): column for column in order[::-1].tolist()}
        best = sorted(first.values(), key=order.tolist().index)[: check.most_positives]
        return [
            NewPositive(
                id=self.filters.task.document_ids[documents[column]],
                score=round(float(candidates.scores[number, column]), DECIMALS),
                ce=round(float(found[column]), DECIMALS),
            )
            for column in best
        ]

    def _suspects(self, candidates: Candidates, number: int) -> list[Suspect]:
        columns = np.flatnonzero(np.isin(candidates.reasons[number], SUSPICIOUS))
        documents = candidates.documents[number]
        order = np.lexsort((documents[columns], -candidates.scores[number, columns]))
        distinct = list(dict.fromkeys(documents[columns[order]].tolist()))[:SUSPECTS_PER_QUERY]
        column_of = {int(documents[column]): column for column in columns[::-1].tolist()}
        return [
            Suspect(
                id=self.filters.task.document_ids[document],
                score=round(float(candidates.scores[number, column_of[document]]), DECIMALS),
                reason=Reason(candidates.reasons[number, column_of[document]]).name.lower(),
            )
            for document in distinct
        ]

    def _rejected(self, candidates: Candidates, number: int) -> list[Rejected]:
        """Return the suspects of the first ranks, each text once."""
        columns = np.flatnonzero(np.isin(candidates.reasons[number], SUSPICIOUS))
        columns = columns[np.lexsort((candidates.sources[columns], candidates.ranks[columns]))]
        documents = candidates.documents[number]
        _, first = np.unique(self.filters.identities[documents[columns]], return_index=True)
        return [
            Rejected(
                id=self.filters.task.document_ids[documents[column]],
                score=round(float(candidates.scores[number, column]), DECIMALS),
                reason=Reason(candidates.reasons[number, column]).name.lower(),
                rank=int(candidates.ranks[column]),
                source=self.sources[candidates.sources[column]].name,
            )
            for column in columns[np.sort(first)][: self.filters.config.num_rejected].tolist()
        ]

    def _fill_at_random(self, block: Block, mined: list[MinedQuery]) -> None:
        """Add random documents that pass the same filters to the queries with too few negatives."""
        config, task = self.filters.config, self.filters.task
        wanted = config.num_negatives
        short = [number for number, query in enumerate(mined) if len(query["neg"]) < wanted]
        if not short:
            return
        drawn = []
        for number in short:
            # Another stream than the one that sampled: the fill must not depend on how much that used.
            generator = query_generator(config.seed, config.epoch, f"{mined[number]['qid']}|fill")
            drawn.append(generator.integers(len(task.documents), size=4 * wanted + 32))
        rows = block.rows[short]
        candidates = join_sources([pad_rows(drawn)])
        candidates = replace(candidates, ranks=candidates.ranks + config.skip_ranks)
        self.filters.apply(candidates, rows, block.lowest[short])
        row_of = task.row_of_document
        for place, number in enumerate(short):
            query = mined[number]
            used = {int(self.filters.identities[row_of[found["id"]]]) for found in query["neg"]}
            columns = merge_survivors(candidates, place, [1.0], self.filters.identities)
            for column in columns.tolist():
                document = int(candidates.documents[place, column])
                if (
                    len(query["neg"]) < wanted
                    and int(self.filters.identities[document]) not in used
                ):
                    score = round(float(candidates.scores[place, column]), DECIMALS)
                    name = task.document_ids[document]
                    query["neg"].append(
                        Negative(id=name, score=score, rank=None, source=RANDOM, ce=None)
                    )


def _count_reasons(candidates: Candidates, number: int) -> dict[str, int]:
    """Count the documents, each once, that every reason kept out."""
    reasons: NDArray[np.int8] = candidates.reasons[number]
    return {
        reason.name.lower(): count
        for reason in Reason
        if reason not in (Reason.KEPT, Reason.UNUSED)
        and (count := len(set(candidates.documents[number, reasons == reason].tolist())))
    }
