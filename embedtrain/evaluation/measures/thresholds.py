"""From what score on is a result worth showing: how scores of relevant and other documents lie, and where to cut.

Source: Roychowdhury et al. (2024), https://arxiv.org/abs/2406.12336, for the three samples of scores and their
overlap; Clopper and Pearson (1934) for the bound.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import betaincinv

from embedtrain.errors import UserError

Scores = Float64[np.ndarray, " pairs"]
Judged = Bool[np.ndarray, " pairs"]

BINS = 50
LEVEL = 0.95


@dataclass(frozen=True)
class Cut:
    """What is shown where results below a score are left out."""

    score: float
    precision: float
    """Share of the shown pairs that are relevant; an unjudged one counts as wrong."""
    recall: float
    """Share of the relevant pairs that are shown."""
    num_pairs: int
    """Pairs that are shown."""


def overlap(first: Scores, second: Float64[np.ndarray, " others"]) -> float:
    r"""Return the area under both densities, $\int \min(f, g)$, in [0, 1], from 50 equal bins of their joint range."""
    ends = min(first.min(), second.min()), max(first.max(), second.max())
    if ends[0] == ends[1]:
        return 1.0
    shares = [np.histogram(one, BINS, ends)[0] / len(one) for one in (first, second)]
    return float(np.minimum(*shares).sum())


def separation(first: Scores, second: Float64[np.ndarray, " others"]) -> float:
    """Return how often a score of the first kind is above one of the second; ties count half (AUC)."""
    below = np.searchsorted(np.sort(second), first, side="left")
    up_to = np.searchsorted(np.sort(second), first, side="right")
    return float((below + up_to).mean() / (2 * len(second)))


def precision_bound(num_relevant: int, num_pairs: int) -> float:
    """Return what the true share is at least, with 95 % confidence (Clopper and Pearson, one-sided)."""
    if num_relevant == 0:
        return 0.0
    return float(betaincinv(num_relevant, num_pairs - num_relevant + 1, 1 - LEVEL))


def cut_at(score: float, scores: Scores, relevant: Judged) -> Cut:
    """Return what is shown at and above a score; with no pair there precision is 0."""
    shown = scores >= score
    hits = int((shown & relevant).sum())
    number = int(shown.sum())
    return Cut(score, hits / max(number, 1), hits / max(int(relevant.sum()), 1), number)


def lowest_cut(scores: Scores, relevant: Judged, precision: float, *, sure: bool = True) -> float:
    """Return the lowest score from which on the wanted precision is reached.

    Precision is not monotone in the score, so it may be missed between two scores that reach it. ``sure`` asks
    that its lower bound of 95 % be reached: a score that is chosen by the precision itself, on the same pairs, misses
    it on others more often than not.

    Raises:
        UserError: If no score reaches it.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    hits, ranks = np.cumsum(relevant[order]), np.arange(1, len(scores) + 1)
    last = np.append(ordered[1:] != ordered[:-1], True)  # equal scores are shown together
    if sure:
        counts = zip(hits.tolist(), ranks.tolist(), strict=True)
        reached = np.array([precision_bound(*count) for count in counts])
    else:
        reached = hits / ranks
    found = np.flatnonzero(last & (reached >= precision))
    if len(found) == 0:
        raise UserError(
            "thresholds",
            "no score reaches the wanted precision",
            got=f"{precision:g} on {len(scores)} judged pairs",
            cure="Lower --wanted or judge more pairs",
        )
    return float(ordered[found[-1]])
