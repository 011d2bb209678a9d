"""How sure a mean over queries is, and whether two systems differ by more than chance.

Everything works on one value per query. Queries that share a source, a template or a paraphrase set are
not independent; pass their ``clusters`` (one label per query), or intervals come out far too narrow.
``python scripts/benchmark_statistics.py`` shows how often the intervals hold what they say.

Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 12 (studentised intervals);
Smucker et al. (2007), A Comparison of Statistical Significance Tests for Information Retrieval Evaluation.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtrit

from embedtrain.errors import UserError

Values = Float64[np.ndarray, " queries"]
PerCluster = Float64[np.ndarray, " clusters"]
Clusters = Sequence[str] | None

NUM_RESAMPLES = 10_000
LEVEL = 0.95
POWER = 0.8
NORMAL_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)
FEWEST = 8
"""Below so many queries or clusters no interval holds what it says; below 6 no test can find anything."""
FEW = 50
"""Below so many an interval of skewed scores covers less often than it says: about 90 % at 20."""
ENUMERATED = 15
"""Up to so many queries or clusters all patterns of signs are tried, at most 32,768."""
DRAWS_PER_BLOCK = 2**20
"""Random draws held at once: 8 MiB each of places and of values, whatever the number of queries."""


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its 95 % confidence interval.

    ``num`` counts the queries, or the clusters, that were drawn; results of older versions lack it (0) and
    have percentile intervals.
    """

    value: float
    low: float
    high: float
    num: int = 0
    method: str = "percentile"


@dataclass(frozen=True)
class PairedComparison:
    """How a system differs from a baseline on the same queries; positive is better.

    Of a metric that counts errors the difference is therefore how much less it is.
    """

    difference: float
    low: float
    high: float
    p_value: float
    minimum_detectable_difference: float
    num: int = 0
    method: str = "percentile"


class _Studentised(NamedTuple):
    """A mean, its standard error, and how far from it resamples lie in standard errors of their own."""

    mean: float
    error: float
    distances: Float64[np.ndarray, " resamples"]


def bootstrap_interval(
    values: Values,
    *,
    clusters: Clusters = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    r"""Estimate the interval of a mean by the symmetric studentised bootstrap.

    Queries are drawn with replacement. With $T_b = |m_b - m| / e_b$ of a resample with the mean $m_b$ and the
    standard error $e_b$, the interval is $m \pm c e$, $c$ the 95th percentile of $T_b$. With ``clusters`` whole
    clusters are drawn and the mean is sum over size of what was drawn. Of skewed scores it covers more
    often than the percentile interval, Student's and BCa. Where resamples are too often all alike, Student's
    $t$ gives $c$. Scores between 0 and 1 have an interval between 0 and 1, and scores that are 0 or 1 have
    Wilson's, unless they stand in clusters. The same seed gives the same interval, and the same draws for
    every metric of the same queries.
    """
    totals, sizes = _cluster_totals(values, clusters)
    if clusters is None and np.isin(values, (0.0, 1.0)).all():
        return _wilson_interval(values)
    interval = _interval(_studentise(totals, sizes, num_resamples, seed), len(totals))
    if values.min() < 0 or values.max() > 1:
        return interval
    low, high = max(interval.low, 0.0), min(interval.high, 1.0)
    return Interval(interval.value, low, high, interval.num, interval.method)


def sign_flip_p_value(
    differences: Values,
    *,
    clusters: Clusters = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> float:
    """Test whether paired differences lie symmetrically about zero, by giving them other signs (two-sided).

    Up to 15 queries or clusters all patterns of signs are tried and p is exact. Beyond,
    ``p = (1 + #{|mean*| >= |mean|}) / (num_resamples + 1)`` of random ones. The signs of a cluster flip
    together. No difference anywhere gives 1.
    """
    totals, _ = _cluster_totals(differences, clusters)
    # Sums that are equal on paper may differ in their last bits; they must count as reached.
    reached = abs(totals.sum()) - 1e-12 * np.abs(totals).sum()
    if len(totals) <= ENUMERATED:
        patterns = np.arange(2 ** len(totals))[:, None] >> np.arange(len(totals)) & 1
        return float((np.abs((1.0 - 2.0 * patterns) @ totals) >= reached).mean())
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
    """Compare a system with a baseline query by query.

    The p-value is the larger of two: the sign-flip test's, which asks whether the systems could be exchanged,
    and the studentised bootstrap's, which asks whether the mean difference is zero. Skewed differences
    fool the first more often than it says.
    """
    differences = values - baseline
    totals, sizes = _cluster_totals(differences, clusters)
    detectable = minimum_detectable_difference(differences, clusters=clusters)
    drawn = _studentise(totals, sizes, num_resamples, seed)
    interval = _interval(drawn, len(totals))
    p_value = sign_flip_p_value(
        differences, clusters=clusters, num_resamples=num_resamples, seed=seed
    )
    if interval.method == "studentised":
        reached = abs(drawn.mean) / drawn.error - 1e-9
        extreme = int((drawn.distances >= reached).sum())
        p_value = max(p_value, (1 + extreme) / (len(drawn.distances) + 1))
    return PairedComparison(
        interval.value, interval.low, interval.high, p_value, detectable, interval.num, interval.method,
    )  # fmt: skip


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

    ``(t(0.975) + t(0.8)) * SE`` with the standard error of the mean difference observed, by cluster where
    given, and Student's t of one degree of freedom less. A smaller observed difference says little.
    Needs two queries or clusters.
    """
    totals, sizes = _cluster_totals(differences, clusters)
    num_clusters = len(totals)
    if num_clusters < 2:
        raise UserError(
            "comparison", "needs at least two queries or clusters", got=num_clusters, cure="Compare on more data",
        )  # fmt: skip
    return detected_errors(num_clusters) * _standard_error(totals, sizes)


def standard_error(differences: Values) -> float:
    """Give the standard error of a mean over queries; 0 of one query, and where all are equal."""
    return _standard_error(differences, np.ones(len(differences))) if len(differences) > 1 else 0.0


def detected_errors(num: int) -> float:
    """Give the standard errors in a minimum detectable difference at level 5 % and power 80 %.

    By Student's t of ``num`` queries or clusters; 0, where the number is not known, takes the normal one.
    """
    freedom = num - 1 if num else math.inf
    return float(stdtrit(freedom, (1 + LEVEL) / 2) + stdtrit(freedom, POWER))


def _interval(drawn: _Studentised, num: int) -> Interval:
    """Lay the interval around the mean; Student's where too few resamples had a spread."""
    usable = len(drawn.distances)
    method, factor = "studentised", 0.0
    if drawn.error == 0:
        method = "constant"
    elif usable == 0:
        method, factor = "t", float(stdtrit(num - 1, (1 + LEVEL) / 2)) if num > 1 else math.inf
    else:
        place = min(math.ceil(LEVEL * (usable + 1)), usable) - 1
        factor = float(np.partition(drawn.distances, place)[place])
    half = factor * drawn.error
    return Interval(drawn.mean, drawn.mean - half, drawn.mean + half, num, method)


def _studentise(
    totals: PerCluster, sizes: PerCluster, num_resamples: int, seed: int
) -> _Studentised:
    """Draw clusters; no distances come back where a tenth of the resamples had no spread."""
    mean = float(totals.sum() / sizes.sum())
    error = _standard_error(totals, sizes) if len(totals) > 1 else 0.0
    residuals = totals - mean * sizes
    # Of a resample with the shift d of its mean: sum (r - d n)^2 = sum r^2 - 2 d sum r n + d^2 sum n^2.
    terms = np.stack((residuals, sizes, residuals**2, residuals * sizes, sizes**2), axis=1)
    generator = np.random.Generator(np.random.PCG64(seed))
    distances = []
    for rows in block_rows(len(totals), num_resamples):
        drawn = generator.integers(len(totals), size=(rows, len(totals)))
        places = drawn + np.arange(rows)[:, None] * len(totals)
        times = np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape)
        total, size, squares, products, size_squares = (times @ terms).T
        shift = total / size
        spread = np.maximum(squares - 2 * shift * products + shift**2 * size_squares, 0.0)
        errors = np.sqrt(spread * len(totals) / max(len(totals) - 1, 1)) / size
        usable = errors > 1e-6 * error
        distances.append(np.abs(shift[usable]) / errors[usable])
    found = np.concatenate(distances)
    if error == 0 or len(found) < 0.9 * num_resamples:
        found = found[:0]
    return _Studentised(mean, error, found)


def _standard_error(totals: PerCluster, sizes: PerCluster) -> float:
    """Return that of sum over size, linearised; of values without clusters it is that of their mean."""
    deviations = totals - sizes * (totals.sum() / sizes.sum())
    # What is left when all are equal is rounding.
    if np.abs(deviations).max() <= 1e-12 * np.abs(totals).max():
        return 0.0
    variance = len(totals) / (len(totals) - 1) * float((deviations**2).sum())
    return math.sqrt(variance) / float(sizes.sum())


def _wilson_interval(values: Values) -> Interval:
    """Return Wilson's score interval of a share. Source: Wilson (1927), Probable Inference."""
    num, share = len(values), float(values.mean())
    square = NORMAL_QUANTILE**2 / num
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return Interval(share, max(middle - half, 0.0), min(middle + half, 1.0), num, "wilson")


def _cluster_totals(values: Values, clusters: Clusters) -> tuple[PerCluster, PerCluster]:
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
            "clusters", f"are not as many as the {len(values)} queries", got=len(clusters), cure="Give each query one label",
        )  # fmt: skip
    _, cluster_of_query = np.unique(np.array(clusters), return_inverse=True)
    return np.bincount(cluster_of_query, values), np.bincount(cluster_of_query).astype(np.float64)


def block_rows(num_places: int, num_resamples: int) -> Iterator[int]:
    """Divide the resamples into blocks of bounded memory; the stream of draws does not depend on it."""
    rows = max(1, DRAWS_PER_BLOCK // num_places)
    for start in range(0, num_resamples, rows):
        yield min(rows, num_resamples - start)
