r"""From a judge's log-odds to a probability: $p = \sigma((l - b) / T)$.

Pairs with a random document are known not to be relevant, and cost no label: b is raised until at most 1 % of them come
out relevant. It is never lowered by them: any judge puts random documents far below hard ones. Labels of people
may move it either way.

Source: Platt (1999) for the fit on labels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

RANDOM_YES = 0.01
FEWEST_OF_A_KIND = 20
"""Labelled pairs of each kind from which a threshold is fitted."""
Scores = Float64[np.ndarray, " pairs"]


@dataclass(frozen=True)
class Calibration:
    """A shift b and a scale T."""

    shift: float = 0.0
    scale: float = 1.0

    def probabilities(self, scores: Scores) -> Scores:
        """Return the probability of being relevant of each pair."""
        # Written by tanh, which cannot overflow.
        found: Scores = 0.5 * (1 + np.tanh((scores - self.shift) / (2 * self.scale)))
        return found


def yes_ratio(scores: Scores, calibration: Calibration) -> float | None:
    """Return the share of pairs that come out relevant; None of none."""
    return float((scores > calibration.shift).mean()) if len(scores) else None


def raised(calibration: Calibration, random: Scores) -> Calibration:
    """Return it with the smallest shift, not below its own, under which at most 1 % of random pairs are relevant."""
    if not len(random):
        return calibration
    bound = float(np.quantile(random, 1 - RANDOM_YES, method="higher"))
    return Calibration(max(calibration.shift, bound), calibration.scale)


def fitted(scores: Scores, people: Bool[np.ndarray, " pairs"]) -> Calibration:
    """Return the shift and scale of a logistic regression on labels.

    The identity where there are too few, or where the judge does not put relevant pairs higher.
    """
    relevant = int(people.sum())
    if min(relevant, len(people) - relevant) < FEWEST_OF_A_KIND or np.ptp(scores) == 0:
        return Calibration()
    # Targets a little inside of 0 and 1, as Platt has them: a perfect judge has no finite fit otherwise.
    high, low = (relevant + 1) / (relevant + 2), 1 / (len(people) - relevant + 2)
    target = np.where(people, high, low)
    middle, spread = float(scores.mean()), float(scores.std())
    design = np.stack([(scores - middle) / spread, np.ones(len(scores))], axis=1)
    weights = np.zeros(2)
    for _ in range(100):
        found = 0.5 * (1 + np.tanh(design @ weights / 2))
        slope = design.T @ (found - target)
        curve = (design * (found * (1 - found))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        # A long step may overshoot where all is nearly certain.
        weights -= step / max(1.0, float(np.abs(step).max()) / 5)
        if np.abs(step).max() < 1e-10:
            break
    if weights[0] <= 0:
        return Calibration()
    return Calibration(middle - spread * float(weights[1] / weights[0]), spread / float(weights[0]))
