"""Intervals and paired tests of metrics that are no mean over items; see :mod:`embedtrain.evaluation.measures.set_metrics`.

Items, or whole clusters of them, are drawn with replacement and the metric is computed again each time.

Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 13 and 16.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.set_metrics import Score
from embedtrain.evaluation.measures.statistics import (
    LEVEL,
    Interval,
    PairedComparison,
    block_rows,
    detected_errors,
)

NUM_RESAMPLES = 2_000
"""Fewer than for means: each resample is a metric of all items."""


def bootstrap_metric(
    score: Score,
    num_items: int,
    *,
    clusters: Sequence[str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Estimate the percentile bootstrap interval of a metric; resamples that leave it undefined do not count.

    Raises:
        UserError: If the metric of the items themselves is undefined.
    """
    value = _value(score, num_items)
    resampled = np.concatenate(
        [score(weights) for weights in draw_weights(num_items, clusters, num_resamples, seed)]
    )
    return Interval(value, *_bounds(resampled), _count(num_items, clusters))


def compare_metric(
    score: Score,
    baseline: Score,
    num_items: int,
    *,
    clusters: Sequence[str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> PairedComparison:
    r"""Compare two systems on the same items, drawn together.

    The p-value is that of the centred bootstrap, $(1 + \#\{|d^* - d| \ge |d|\}) / (R + 1)$: a sign-flip test
    needs one value per item, which these metrics do not have.
    """
    difference = _value(score, num_items) - _value(baseline, num_items)
    resampled = np.concatenate(
        [
            score(weights) - baseline(weights)
            for weights in draw_weights(num_items, clusters, num_resamples, seed)
        ]
    )
    resampled = resampled[~np.isnan(resampled)]
    reached = abs(difference) - 1e-12
    extreme = int((np.abs(resampled - difference) >= reached).sum())
    p_value = (1 + extreme) / (len(resampled) + 1)
    num = _count(num_items, clusters)
    detectable = detected_errors(num) * float(resampled.std(ddof=1))
    return PairedComparison(difference, *_bounds(resampled), p_value, detectable, num)


def draw_weights(
    num_items: int, clusters: Sequence[str] | None, num_resamples: int, seed: int
) -> Iterator[Float64[np.ndarray, "resamples items"]]:
    """Yield how often each item was drawn, in blocks of resamples of bounded memory."""
    labels: Int64[np.ndarray, " items"] = np.arange(num_items)
    if clusters is not None:
        labels = np.unique(np.array(clusters), return_inverse=True)[1].astype(np.int64)
    num_clusters = int(labels.max()) + 1
    generator = np.random.Generator(np.random.PCG64(seed))
    for count in block_rows(num_items, num_resamples):
        drawn = generator.integers(num_clusters, size=(count, num_clusters))
        places = drawn + np.arange(count)[:, None] * num_clusters
        times = np.bincount(places.ravel(), minlength=count * num_clusters)
        yield times.reshape(count, num_clusters)[:, labels].astype(np.float64)


def _count(num_items: int, clusters: Sequence[str] | None) -> int:
    return num_items if clusters is None else len(set(clusters))


def _value(score: Score, num_items: int) -> float:
    value = float(score(np.ones((1, num_items)))[0])
    if np.isnan(value):
        raise UserError(
            "metric",
            "is undefined for these items: all expectations or all predictions are equal",
            cure="Check the data and the model",
        )
    return value


def _bounds(values: Float64[np.ndarray, " resamples"]) -> tuple[float, float]:
    low, high = np.nanquantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)).tolist()
    return low, high
