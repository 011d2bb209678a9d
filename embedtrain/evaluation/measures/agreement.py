r"""How far a judge's labels can be believed: agreement with people, and means that few people and a judge give.

Kappa is $(p_o - p_e) / (1 - p_e)$ of observed and expected agreement; it falls where almost nothing is relevant, though
the judge is as good, so the prevalence and the AUC belong beside it. Pairs of one query are not independent: intervals
draw whole queries.

Source: Cohen (1960) for kappa; Angelopoulos et al. (2023), https://arxiv.org/abs/2311.01453, for
``prediction_powered``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import stdtrit
from scipy.stats import rankdata

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.statistics import (
    FEWEST,
    LEVEL,
    NUM_RESAMPLES,
    Interval,
    block_rows,
)

Table = Float64[np.ndarray, "resamples 2 2"]
PerQuery = Mapping[str, float]
SAME_QUERIES = (
    "Queries that people judged and queries that only the judge judged must come from one source, such as a log: "
    "never mix those of people with written ones"
)


@dataclass(frozen=True)
class Confusion:
    """Pairs by what a judge and people call them; ``both`` are relevant to both."""

    both: int
    judge_only: int
    people_only: int
    neither: int

    @property
    def num(self) -> int:
        """All pairs."""
        return self.both + self.judge_only + self.people_only + self.neither

    def report(self) -> dict[str, float | int | None]:
        """Return the table and its figures by name; None where there is nothing to divide by."""
        judge, people = self.both + self.judge_only, self.both + self.people_only
        return {
            "num_pairs": self.num,
            "relevant_to_both": self.both,
            "relevant_to_judge_only": self.judge_only,
            "relevant_to_people_only": self.people_only,
            "relevant_to_neither": self.neither,
            "prevalence": _ratio(people, self.num),
            "accuracy": _ratio(self.both + self.neither, self.num),
            "precision": _ratio(self.both, judge),
            "recall": _ratio(self.both, people),
        }


@dataclass(frozen=True)
class PredictionPowered:
    """A mean over queries from few judgments of people and many of a judge, with its 95 % interval."""

    value: float
    low: float
    high: float
    error: float
    """Standard error."""
    weight: float
    """How far the judge was believed, from 0 (people alone) to 1."""
    people_alone: Interval
    """What the queries that people judged say without the judge."""
    num_judged: int
    """Queries that only the judge judged."""


def confusion(judge: Bool[np.ndarray, " pairs"], people: Bool[np.ndarray, " pairs"]) -> Confusion:
    """Count pairs by both verdicts."""
    return Confusion(
        both=int((judge & people).sum()),
        judge_only=int((judge & ~people).sum()),
        people_only=int((~judge & people).sum()),
        neither=int((~judge & ~people).sum()),
    )


def kappa(judge: Int64[np.ndarray, " pairs"], people: Int64[np.ndarray, " pairs"]) -> float:
    """Return Cohen's kappa of labels that are 0 or 1.

    A judge that always says the same has 0, and so have two that always say the same thing.
    """
    table = np.zeros((2, 2))
    np.add.at(table, (judge, people), 1.0)
    return float(_kappas(table[None])[0])


def kappa_interval(
    judge: Int64[np.ndarray, " pairs"],
    people: Int64[np.ndarray, " pairs"],
    queries: Sequence[str],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return kappa with percentiles of resamples of whole queries, one label per pair in ``queries``.

    Raises:
        UserError: If there is no pair.
    """
    if not len(judge):
        raise UserError("agreement", "needs at least one pair", cure="Give labels of people")
    _, owner = np.unique(np.array(queries), return_inverse=True)
    num = int(owner.max()) + 1
    tables = np.zeros((num, 2, 2))
    np.add.at(tables, (owner, judge, people), 1.0)
    flat = tables.reshape(num, -1)
    generator = np.random.Generator(np.random.PCG64(seed))
    found = []
    for rows in block_rows(num, num_resamples):
        drawn = generator.integers(num, size=(rows, num)) + np.arange(rows)[:, None] * num
        times = np.bincount(drawn.ravel(), minlength=rows * num).reshape(rows, num)
        sums = (times @ flat).reshape(rows, 2, 2)
        found.append(_kappas(sums))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    value = float(_kappas(tables.sum(axis=0)[None])[0])
    return Interval(value, float(low), float(high), num, "percentile")


def auc(scores: Float64[np.ndarray, " pairs"], people: Bool[np.ndarray, " pairs"]) -> float | None:
    """Return how often a relevant pair scores above another one, ties counting half; None without pairs of both."""
    relevant = int(people.sum())
    others = len(people) - relevant
    if not relevant or not others:
        return None
    ranks = rankdata(scores)
    return float((ranks[people].sum() - relevant * (relevant + 1) / 2) / (relevant * others))


def prediction_powered(people: PerQuery, judge: PerQuery) -> PredictionPowered:
    r"""Estimate the mean that people would give of all queries, from their labels of some and a judge's of all.

    With $y$ and $f$ a metric under the labels of people and of the judge, $n$ queries judged by both and $N$ by the
    judge alone, it is $\lambda \, \mathrm{mean}_N f + \mathrm{mean}_n (y - \lambda f)$, which no bias of the judge
    shifts; $\lambda = \mathrm{Cov}_n(y, f) / (\mathrm{Var}(f) (1 + n/N))$, cut to [0, 1], makes it narrow.

    Args:
        people: The metric of each query that people judged.
        judge: The metric under the judge's labels, of those queries and of others.

    Raises:
        UserError: If people judged too few queries, or the judge not all of them.
    """
    missing = [name for name in people if name not in judge]
    if missing:
        raise UserError(
            "prediction-powered mean", "needs the judge's labels of every query that people judged",
            got=f"{len(missing)} without, such as {missing[0]}", cure=SAME_QUERIES,
        )  # fmt: skip
    if len(people) < FEWEST:
        raise UserError(
            "prediction-powered mean", f"needs {FEWEST} queries that people judged",
            got=len(people), cure=SAME_QUERIES,
        )  # fmt: skip
    own = np.array(list(people.values()), dtype=np.float64)
    same = np.array([judge[name] for name in people], dtype=np.float64)
    others = np.array([value for name, value in judge.items() if name not in people])
    weight = _weight(own, same, others)
    alone = _student(float(own.mean()), math.sqrt(own.var(ddof=1) / len(own)), len(own))
    rest = own - weight * same
    value, variance = float(rest.mean()), float(rest.var(ddof=1)) / len(own)
    if weight:
        value += weight * float(others.mean())
        variance += weight**2 * float(others.var(ddof=1)) / len(others)
    error = math.sqrt(variance)
    found = _student(value, error, len(own))
    return PredictionPowered(value, found.low, found.high, error, weight, alone, len(others))


def prediction_powered_difference(
    people: tuple[PerQuery, PerQuery], judge: tuple[PerQuery, PerQuery]
) -> PredictionPowered:
    """Estimate by how much a system beats another, each given as the pair (system, baseline).

    Raises:
        UserError: As :func:`prediction_powered`.
    """
    both = [
        {name: system[name] - baseline[name] for name in system if name in baseline}
        for system, baseline in (people, judge)
    ]
    return prediction_powered(*both)


def _weight(
    own: Float64[np.ndarray, " people"],
    same: Float64[np.ndarray, " people"],
    others: Float64[np.ndarray, " others"],
) -> float:
    """Return how far the judge is believed; 0 where it says the same of every query, or there are no others."""
    if len(others) < 2:
        return 0.0
    spread = float(np.concatenate([same, others]).var(ddof=1))
    if spread == 0:
        return 0.0
    covariance = float(np.cov(own, same)[0, 1])
    return min(max(covariance / (spread * (1 + len(own) / len(others))), 0.0), 1.0)


def _student(value: float, error: float, num: int) -> Interval:
    half = float(stdtrit(num - 1, (1 + LEVEL) / 2)) * error
    return Interval(value, value - half, value + half, num, "t")


def _kappas(tables: Table) -> Float64[np.ndarray, " resamples"]:
    misses = 1 - np.eye(2)
    shares = tables / tables.sum(axis=(-2, -1), keepdims=True)
    expected = shares.sum(-1)[..., :, None] * shares.sum(-2)[..., None, :]
    observed, chance = (misses * shares).sum((-2, -1)), (misses * expected).sum((-2, -1))
    # Where chance cannot miss, nothing was shown.
    result: Float64[np.ndarray, " resamples"] = 1 - np.where(chance > 0, observed, 1.0) / np.where(
        chance > 0, chance, 1.0
    )
    return result


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
