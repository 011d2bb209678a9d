"""A small judge is asked about every pair, a larger one about those that the small one suspects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.mining.judgement.asking import AskedJudge, Budget
from embedtrain.mining.judgement.calibration import Calibration, Scores, fitted, raised, yes_ratio
from embedtrain.mining.judgement.pairs import Pair

Advance = Callable[[int], None]
RELEVANT = 0.5
"""Probability from which a pair counts as relevant where judge and people are compared."""


@dataclass(frozen=True)
class Verdict:
    """What the judges say of a pair."""

    pair: Pair
    small: float
    large: float | None = None

    @property
    def p(self) -> float:
        """The probability that counts: the larger judge's where it was asked."""
        return self.small if self.large is None else self.large


@dataclass(frozen=True)
class Cascade:
    """One or two judges with their calibrations."""

    judges: Sequence[AskedJudge]
    budget: Budget
    uncertain: tuple[float, float]
    calibrations: Sequence[Calibration] = ()

    def calibrated(
        self, random: Sequence[Pair], labelled: Sequence[Pair]
    ) -> tuple["Cascade", list[dict[str, object]]]:
        """Return the cascade with thresholds from random pairs and labels of people, and a report on each."""
        found: list[Calibration] = []
        reports: list[dict[str, object]] = []
        for judge in self.judges:
            calibration = Calibration()
            labels = self._scores(judge, labelled)
            if len(labels):
                people = np.array([pair.relevant is True for pair in labelled[: len(labels)]])
                calibration = fitted(labels, people)
            scores = self._scores(judge, random)
            before = yes_ratio(scores, calibration)
            calibration = raised(calibration, scores)
            found.append(calibration)
            reports.append(
                {
                    "shift": round(calibration.shift, 6),
                    "scale": round(calibration.scale, 6),
                    "num_random": len(scores),
                    "random_relevant_before": before,
                    "random_relevant": yes_ratio(scores, calibration),
                    "num_labels": len(labels),
                }
            )
        return Cascade(self.judges, self.budget, self.uncertain, found), reports

    def ask(self, pairs: Sequence[Pair], advance: Advance = lambda _: None) -> list[Verdict]:
        """Judge pairs in their order until all are judged or the budget ends.

        A pair about which the larger judge should be asked, and cannot be paid for, has no verdict.
        """
        verdicts: list[Verdict] = []
        for block in _blocks(pairs, self.judges[0].block):
            found = self._probabilities(0, block)
            judged = [Verdict(*one) for one in zip(block, found, strict=False)]
            whole = len(judged) == len(block)
            if len(self.judges) > 1:
                judged, asked = self._asked_again(judged)
                whole = whole and asked
            verdicts += judged
            advance(len(block))
            if not whole:
                break
        return verdicts

    def suspects(self, pair: Pair, small: float) -> bool:
        """Whether what the small judge says asks for the larger one."""
        low, high = self.uncertain
        return small <= high if pair.role == "positive" else small >= low

    def _asked_again(self, judged: list[Verdict]) -> tuple[list[Verdict], bool]:
        """Ask the larger judge where the small one suspects something; also tell whether all could be asked."""
        suspected = [one.pair for one in judged if self.suspects(one.pair, one.small)]
        found = dict(zip(suspected, self._probabilities(1, suspected), strict=False))
        skipped = set(suspected[len(found) :])
        answered = [
            Verdict(one.pair, one.small, found.get(one.pair))
            for one in judged
            if one.pair not in skipped
        ]
        return answered, not skipped

    def _probabilities(self, number: int, pairs: Sequence[Pair]) -> list[float]:
        scores = self._scores(self.judges[number], pairs)
        found: list[float] = self.calibrations[number].probabilities(scores).tolist()
        return found

    def _scores(self, judge: AskedJudge, pairs: Sequence[Pair]) -> Scores:
        """Return log-odds of as many first pairs as the budget pays for."""
        found = [np.empty(0)]
        for block in _blocks(pairs, judge.block):
            rest = block
            # What a pair takes is known better after the first: what did not seem to fit may.
            while rest and (room := self.budget.room(judge, rest)):
                found.append(judge.ask(rest[:room]))
                rest = rest[room:]
            if rest:
                break
        return np.concatenate(found)


def _blocks(pairs: Sequence[Pair], size: int) -> list[Sequence[Pair]]:
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]
