"""Metrics of a whole set of items that are no mean over them: rank correlation, average precision, V-measure.

Each takes what a model predicted for the items and what was expected, sorts once, and then scores any
number of weightings of the items: a resample of the bootstrap is the number of times each item was drawn.
A weighting that leaves a metric undefined (no spread, no positive) gives NaN.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from embedtrain.errors import UserError

Sums = Float64[np.ndarray, "resamples groups"]
Rows = Float[np.ndarray, "rows items"]

Items = Float64[np.ndarray, " items"]
Weights = Float64[np.ndarray, "resamples items"]
Values = Float64[np.ndarray, " resamples"]
Score = Callable[[Weights], Values]
"""Weights of the items, a row for each resample, to the metric of each resample."""


def set_metric(name: str, predicted: Items, expected: Items) -> Score:
    """Prepare the metric ``name`` for these items.

    Raises:
        UserError: If there is no such metric.
    """
    if name not in SET_METRICS:
        cure = f"Use {', '.join(SET_METRICS)}"
        raise UserError("metrics", "name an unknown metric", got=name, cure=cure)
    return SET_METRICS[name](predicted, expected)


def spearman(predicted: Items, expected: Items) -> Score:
    """Correlate ranks, tied values sharing their mean rank."""
    first, second = _Groups(predicted), _Groups(expected)

    def score(weights: Weights) -> Values:
        return _correlate(first.ranks(weights), second.ranks(weights), weights)

    return score


def pearson(predicted: Items, expected: Items) -> Score:
    """Correlate the values themselves."""

    def score(weights: Weights) -> Values:
        return _correlate(predicted[None], expected[None], weights)

    return score


def average_precision(predicted: Items, expected: Items) -> Score:
    r"""Average the precision over the positives, from the highest prediction down.

    $$\sum_g (R_g - R_{g-1}) P_g$$ over the distinct predictions, so that ties are taken together, as
    scikit-learn's ``average_precision_score`` does. ``expected`` is 1 for positives and 0 for others.
    """
    groups = _Groups(-predicted)

    def score(weights: Weights) -> Values:
        positives = groups.sums(weights * expected)
        precision = _ratio(positives.cumsum(axis=1), groups.sums(weights).cumsum(axis=1), 0.0)
        return _ratio((precision * positives).sum(axis=1), positives.sum(axis=1), np.nan)

    return score


def v_measure(predicted: Items, expected: Items) -> Score:
    r"""Take the harmonic mean of homogeneity and completeness of clusters against classes.

    $$V = \frac{2 I(C, K)}{H(C) + H(K)}$$. It grows when items are drawn twice, so bootstrap intervals of
    a set with few items per cluster lie somewhat high.

    Source: Rosenberg and Hirschberg (2007), https://aclanthology.org/D07-1043.
    """
    clusters, classes = _Groups(predicted), _Groups(expected)
    cells = _Groups((clusters.group_of * (classes.group_of.max() + 1) + classes.group_of) * 1.0)

    def score(weights: Weights) -> Values:
        first, second = _entropy(clusters.sums(weights)), _entropy(classes.sums(weights))
        shared = first + second - _entropy(cells.sums(weights))
        return _ratio(2 * shared, first + second, 1.0)

    return score


SET_METRICS: dict[str, Callable[[Items, Items], Score]] = {
    function.__name__: function for function in (spearman, pearson, average_precision, v_measure)
}


class _Groups:
    """Items sorted by a value, equal values together."""

    def __init__(self, values: Items) -> None:
        self.order: Int64[np.ndarray, " items"] = np.argsort(values, kind="stable")
        _, self.starts, self.group_of = np.unique(
            values[self.order], return_index=True, return_inverse=True
        )
        self.group_of = self.group_of[np.argsort(self.order, kind="stable")]

    def sums(self, weights: Weights) -> Sums:
        """Add up the weights of each group."""
        sums: Sums = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        return sums

    def ranks(self, weights: Weights) -> Weights:
        """Rank each item among the weighted ones, ties by their mean."""
        sums = self.sums(weights)
        middle = sums.cumsum(axis=1) - (sums - 1) / 2
        ranks: Weights = middle[:, self.group_of]
        return ranks


def _correlate(first: Rows, second: Rows, weights: Weights) -> Values:
    total = weights.sum(axis=1, keepdims=True)
    first = first - (weights * first).sum(axis=1, keepdims=True) / total
    second = second - (weights * second).sum(axis=1, keepdims=True) / total
    product = (weights * first * second).sum(axis=1)
    spread = (weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1)
    return _ratio(product, np.sqrt(spread), np.nan)


def _entropy(sums: Sums) -> Values:
    shares = sums / sums.sum(axis=1, keepdims=True)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy: Values = -(shares * logarithms).sum(axis=1)
    return entropy


def _ratio(
    numerator: Float64[np.ndarray, "..."], denominator: Float64[np.ndarray, "..."], otherwise: float
) -> Float64[np.ndarray, "..."]:
    quotients = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), otherwise)
    np.divide(numerator, denominator, out=quotients, where=denominator > 1e-15)
    return quotients


def as_arrays(
    predicted: dict[str, float], expected: dict[str, float], items: Sequence[str]
) -> tuple[Items, Items]:
    """Lay the values of the items out in the order given."""
    return (
        np.array([predicted[item] for item in items], dtype=np.float64),
        np.array([expected[item] for item in items], dtype=np.float64),
    )
