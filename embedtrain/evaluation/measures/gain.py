"""Is a trained model better than its start? The answer that decides which of the two is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from scipy.special import stdtrit

from embedtrain.evaluation.measures.statistics import FEWEST, PairedComparison

FEW_QUERIES = 30
"""Below so many the interval is widened: the bootstrap's covers less often than it says there."""
SATURATED = 0.98
"""A start that scores so much leaves nothing to see."""
CAREFUL_LEVEL = 0.99
WIDENED = ", widened"
"""Ends the name of the method of an interval that is wider than it says."""
Ship = Literal["evidence", "point"]


@dataclass(frozen=True)
class Verdict:
    """Whether the trained model takes the place of its start, and why, one sentence each."""

    ships: bool
    gain: PairedComparison
    """That of the queries it was decided on, widened where they are few."""
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def decide(
    paired: PairedComparison,
    start: float,
    guards: Mapping[str, PairedComparison],
    *,
    queries: str,
    max_loss: float,
    ship: Ship = "evidence",
) -> Verdict:
    """Decide by held-out queries, and by what must not be forgotten.

    Args:
        paired: The gain of the main metric on queries that neither trained nor chose the model.
        start: What the start scores on them.
        guards: Gains on other data, by their names: none may lose more than ``max_loss`` on average.
        queries: What the queries are, for the sentences: ``held-out``, ``human``, ``synthetic``.
        max_loss: Points of the metric, between 0 and 1.
        ship: ``evidence`` asks for an interval above zero, ``point`` for a mean above zero.
    """
    gain = widened(paired)
    warnings = []
    if gain.num < FEW_QUERIES:
        warnings.append(
            f"Only {gain.num} {queries} queries decided, fewer than {FEW_QUERIES}: the interval is widened"
        )
    if start >= SATURATED:
        warnings.append(
            f"The start scores {start:.3f} on the {queries} queries: they cannot show a gain, give human ones"
        )
    reasons = _against(gain, queries, ship)
    reasons += [
        f"on {name} it lost {-found.difference:.3f}, more than the {max_loss:g} allowed"
        for name, found in guards.items()
        if found.difference < -max_loss
    ]
    return Verdict(not reasons, gain, tuple(reasons), tuple(warnings))


def _against(gain: PairedComparison, queries: str, ship: Ship) -> list[str]:
    shown = show_gain(gain)
    if gain.difference == gain.low == gain.high == 0:
        return [f"it ranks the {queries} queries as well as its start, no better"]
    if gain.difference <= 0:
        return [f"it is worse than its start on the {queries} queries: {shown}"]
    if ship == "point":
        return []
    if gain.num < FEWEST:
        return [f"{gain.num} {queries} queries are too few to show a gain; {FEWEST} are the least"]
    if gain.low <= 0:
        return [f"chance explains its gain on the {queries} queries as well: {shown}"]
    return []


def show_gain(gain: PairedComparison) -> str:
    """Return the mean gain with its interval, which is one of 95 % unless it was widened."""
    kind = "widened interval" if gain.method.endswith(WIDENED) else "95 % interval"
    return f"{gain.difference:+.3f}, {kind} {gain.low:+.3f} to {gain.high:+.3f}"


def widened(paired: PairedComparison) -> PairedComparison:
    """Return a comparison of few queries with an interval as wide as Student's t of 99 % is beside that of 95 %."""
    if paired.num >= FEW_QUERIES or paired.num < 2:
        return paired
    freedom = paired.num - 1
    factor = float(stdtrit(freedom, (1 + CAREFUL_LEVEL) / 2) / stdtrit(freedom, 0.975))
    middle = paired.difference
    low, high = middle + factor * (paired.low - middle), middle + factor * (paired.high - middle)
    return replace(paired, low=low, high=high, method=f"{paired.method}{WIDENED}")
