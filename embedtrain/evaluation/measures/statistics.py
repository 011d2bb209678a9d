"""How sure a mean over queries is, and whether two systems differ by more than chance.

Everything works on one value per query. Queries that share a source, a template or a paraphrase set are
not independent; pass their ``clusters`` (one label per query), or intervals come out far too narrow.

Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap; Smucker et al. (2007), A Comparison
of Statistical Significance Tests for Information Retrieval Evaluation.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64

from embedtrain.errors import UserError

Values = Float64[np.ndarray, " queries"]
Clusters = Sequence[str] | None

NUM_RESAMPLES = 10_000
BOUNDS = (0.025, 0.975)
"""Of a 95 % interval."""
DETECTED = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
"""Standard errors in a minimum detectable difference: level 5 %, power 80 %."""
DRAWS_PER_BLOCK = 2**20
"""Random draws held at once: 8 MiB each of places and of values, whatever the number of queries."""


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedComparison:
    """How a system differs from a baseline on the same queries; positive is better."""

    difference: float
    low: float
    high: float
    p_value: float
    minimum_detectable_difference: float


def bootstrap_interval(
    values: Values,
    *,
    clusters: Clusters = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Estimate the percentile bootstrap interval of a mean by drawing queries with replacement.

    With ``clusters`` whole clusters are drawn and the mean is sum over size of what was drawn. The same
    seed gives the same interval, and the same draws for every metric of the same queries. Below about 20
    queries or clusters the interval is somewhat too narrow.
    """
    totals, sizes = _cluster_totals(values, clusters)
    generator = np.random.Generator(np.random.PCG64(seed))
    means = []
    for rows in block_rows(len(totals), num_resamples):
        drawn = generator.integers(len(totals), size=(rows, len(totals)))
        means.append(totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), BOUNDS).tolist()
    return Interval(float(values.mean()), low, high)


def sign_flip_p_value(
    differences: Values,
    *,
    clusters: Clusters = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> float:
    """Test whether paired differences have mean zero, by giving them random signs (two-sided).

    ``p = (1 + #{|mean*| >= |mean|}) / (num_resamples + 1)``; the signs of a cluster flip together. No
    difference anywhere gives 1.
    """
    totals, _ = _cluster_totals(differences, clusters)
    # Sums that are equal on paper may differ in their last bits; they must count as reached.
    reached = abs(totals.sum()) - 1e-12 * np.abs(totals).sum()
    extreme = 0
    generator = np.random.Generator(np.random.PCG64(seed))
    for rows in block_rows(len(totals), num_resamples):
        signs = 1.0 - 2.0 * generator.integers(2, size=(rows, len(totals)))
        extreme += int((np.abs(signs @ totals) >= reached).sum())
    return (1 + extreme) / (num_resamples + 1)


def compare_paired(
    values: Values,
    baseline: Values,
    *,
    clusters: Clusters = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> PairedComparison:
    """Compare a system with a baseline query by query: bootstrap interval and sign-flip test."""
    differences = values - baseline
    interval = bootstrap_interval(
        differences, clusters=clusters, num_resamples=num_resamples, seed=seed
    )
    p_value = sign_flip_p_value(
        differences, clusters=clusters, num_resamples=num_resamples, seed=seed
    )
    detectable = minimum_detectable_difference(differences, clusters=clusters)
    return PairedComparison(interval.value, interval.low, interval.high, p_value, detectable)


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests: below 0.05, any false alarm among them has a chance below 5 %.

    In ascending order the i-th of m (from 0) is multiplied by ``m - i``, made monotone and cut at 1; the
    results stand in the order of the input.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def minimum_detectable_difference(differences: Values, *, clusters: Clusters = None) -> float:
    """Give the true difference that a test at level 5 % would find with probability 80 %.

    ``(z(0.975) + z(0.8)) * SE`` with the standard error of the mean difference observed, by
    cluster where given. A smaller observed difference says little. Needs two queries or clusters.
    """
    totals, sizes = _cluster_totals(differences, clusters)
    num_clusters = len(totals)
    if num_clusters < 2:
        raise UserError(
            "comparison",
            "needs at least two queries or clusters",
            got=num_clusters,
            cure="Compare on more data",
        )
    deviations = totals - sizes * (totals.sum() / sizes.sum())
    variance = num_clusters / (num_clusters - 1) * float((deviations**2).sum())
    return DETECTED * math.sqrt(variance) / float(sizes.sum())


def _cluster_totals(
    values: Values, clusters: Clusters
) -> tuple[Float64[np.ndarray, " clusters"], Float64[np.ndarray, " clusters"]]:
    """Sum the values and count the queries of each cluster; without clusters each query is its own."""
    if len(values) == 0:
        raise UserError(
            "statistics", "need at least one query", cure="Check the data and its split"
        )
    if not np.isfinite(values).all():
        raise UserError("statistics", "met a score that is not finite", cure="Check the scores")
    if clusters is None:
        return values, np.ones(len(values))
    if len(clusters) != len(values):
        raise UserError(
            "clusters",
            f"are not as many as the {len(values)} queries",
            got=len(clusters),
            cure="Give each query one label",
        )
    _, cluster_of_query = np.unique(np.array(clusters), return_inverse=True)
    return np.bincount(cluster_of_query, values), np.bincount(cluster_of_query).astype(np.float64)


def block_rows(num_places: int, num_resamples: int) -> Iterator[int]:
    """Divide the resamples into blocks of bounded memory; the stream of draws does not depend on it."""
    rows = max(1, DRAWS_PER_BLOCK // num_places)
    for start in range(0, num_resamples, rows):
        yield min(rows, num_resamples - start)
