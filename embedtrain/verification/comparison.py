"""One reader against our own vectors: a row of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from embedtrain.errors import UserError
from embedtrain.verification.asking import read
from embedtrain.verification.batches import batch_error
from embedtrain.verification.case import Case, errors_of
from embedtrain.verification.diagnosis import diagnose
from embedtrain.verification.ours import Ours
from embedtrain.verification.process import ReaderFailed
from embedtrain.verification.ranking import Scores
from embedtrain.verification.readers import Opening
from embedtrain.verification.texts import probes_of
from embedtrain.verification.values import Finding, Probe, Reading, Row, Vector

FEWEST = 20
"""Documents below which a search of them says nothing."""
FEWEST_JUDGED = 50
"""Queries below which two documents that change places may cost more than :data:`LOST`."""
LOST = 0.005
"""Of nDCG@10 that may be lost."""


@dataclass(frozen=True)
class Data:
    """The user's texts."""

    queries: Sequence[str] = ()
    documents: Sequence[str] = ()
    qrels: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    """Judgments by the places of queries and documents; empty where there are none."""


class Comparison:
    """Our vectors of all texts, with which readers are compared one after the other.

    Args:
        ours: The model.
        data: Texts to compare on, besides those that are known to be hard.

    Raises:
        UserError: If the model gives something else than finite vectors.
    """

    def __init__(self, ours: Ours, data: Data) -> None:
        self.ours, self.data = ours, data
        self.probes: list[Probe] = probes_of(
            data.queries, data.documents, ours.modes, ours.length, ours.count
        )
        self.reference: list[Vector] = [ours.vector(probe) for probe in self.probes]

    @property
    def scores(self) -> Scores | None:
        """Our search of the user's documents; None where they are too few."""
        return self._scores(
            self.reference, range(len(self.data.queries) + len(self.data.documents))
        )

    def row(self, opening: Opening) -> Row:
        """Start a reader, ask it all, and say what is wrong with it."""
        try:
            with opening.start() as reader:
                reading = read(reader, self.ours, self.probes)
                name, bound = reader.name, reader.bound
        except ReaderFailed as error:
            return Row(opening.name, failure=str(error))
        case = Case(self.ours, self.probes, self.reference, reading, bound)
        row = Row(name, findings=diagnose(case), figures=self._figures(case))
        row.findings += self._ranking(row, reading, bound.overlap)
        return self._beyond_excused(case, row)

    def _figures(self, case: Case) -> dict[str, float]:
        reading = case.reading
        figures = {
            "texts": float(sum(one is not None for one in reading.alone)),
            "batch": batch_error(reading),
            "texts_per_second": reading.texts_per_second,
        }
        if reading.memory:
            figures["memory"] = reading.memory / 1e6
        if reading.ids is not None:
            asked = [row for row, one in enumerate(reading.alone) if one is not None]
            same = [list(reading.ids[row]) == self.ours.ids(self.probes[row]) for row in asked]
            figures["same_ids"] = float(np.mean(same)) if same else 0.0
        return figures

    def _beyond_excused(self, case: Case, row: Row) -> Row:
        """Add the distances of all texts that no excused finding names."""
        named = {place for one in row.findings if one.excused for place in one.probes}
        rows = [place for place, one in enumerate(case.reading.alone) if one is not None and place not in named]  # fmt: skip
        errors = errors_of(case, rows)
        row.figures["compared"] = float(len(rows))
        if errors:
            row.figures |= {"largest": max(errors), "mean": fmean(errors)}
        return row

    def _ranking(self, row: Row, reading: Reading, least: float) -> list[Finding]:
        """Add what a search of the texts that it took finds; say so if it is worse and nothing else is wrong."""
        own = reading.alone[: len(self.data.queries) + len(self.data.documents)]
        taken = [
            place for place, one in enumerate(own) if one is not None and np.isfinite(one).all()
        ]
        mine, theirs = self._scores(self.reference, taken), self._scores(reading.alone, taken)
        if mine is None or theirs is None:
            return []
        found = []
        row.figures["overlap"] = mine.common(theirs)
        if row.figures["overlap"] < least:
            found.append(f"search: {row.figures['overlap']:.1%} of the ten best in common")
        if qrels := self._judged(taken):
            row.figures["ndcg"] = theirs.ndcg(qrels)
            row.figures["ndcg_lost"] = mine.ndcg(qrels) - row.figures["ndcg"]
            if row.figures["ndcg_lost"] > LOST and len(qrels) >= FEWEST_JUDGED:
                found.append(f"search: {row.figures['ndcg_lost']:.4f} of nDCG@10 lost")
        return [Finding(said) for said in found] if row.verdict == "ok" else []

    def _scores(self, vectors: Sequence[Vector | None], places: Sequence[int]) -> Scores | None:
        count = sum(place < len(self.data.queries) for place in places)
        own = [one for one in (vectors[place] for place in places) if one is not None]
        if not count or len(places) - count < FEWEST or len({len(one) for one in own}) != 1:
            return None
        whole = np.stack(own)
        return Scores(whole[:count], whole[count:], self.ours.contract.similarity)

    def _judged(self, places: Sequence[int]) -> dict[int, dict[int, int]]:
        """Return the judgments of texts by their places among so many."""
        count = len(self.data.queries)
        queries = [place for place in places if place < count]
        documents = {place: new for new, place in enumerate(places[len(queries) :])}
        found = {
            new: {
                documents[one + count]: gain
                for one, gain in self.data.qrels.get(place, {}).items()
                if one + count in documents
            }
            for new, place in enumerate(queries)
        }
        return {row: one for row, one in found.items() if any(gain > 0 for gain in one.values())}


def needed_scores(comparison: Comparison) -> Scores:
    """Return what engines are compared by.

    Raises:
        UserError: If there are too few documents to search.
    """
    scores = comparison.scores
    if scores is None:
        raise UserError(
            "--data", f"has fewer than {FEWEST} documents, of which a search would say nothing",
            cure="Name more",
        )  # fmt: skip
    return scores
