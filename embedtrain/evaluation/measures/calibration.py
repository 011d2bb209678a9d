r"""What a score means as a probability: $p = \sigma(a s + b)$, fitted to judged lists of results.

A softmax over a query's documents teaches an order and no level, so a sigmoid of its scores is no probability. The lists
must be those that are served, mostly of irrelevant documents: the share of relevant ones goes into $b$. Queries count
alike, however long their lists.
Source: Platt (1999), fitted by Newton's method.
"""

import numpy as np
from jaxtyping import Bool, Float64

from embedtrain.section import Section

STEPS, ENOUGH = 100, 1e-12
"""Of Newton's method at most, and the length of the gradient where it ends."""
BINS = 15
PRECISION = 0.9

Pairs = Float64[np.ndarray, " pairs"]
Judged = Bool[np.ndarray, " pairs"]


class Calibration(Section):
    """How scores become probabilities, and how far off those are on queries that chose nothing."""

    slope: float
    intercept: float
    loss: float
    """Mean log loss in nats, each half of the queries under the fit of the other."""
    loss_before: float
    """That of the sigmoid of the scores as they are."""
    error: float
    """Expected calibration error, as ``loss``, over 15 bins of equally many pairs."""
    error_before: float
    threshold: float | None
    """The least probability above which nine of ten pairs are relevant; None if there is none."""


def calibrate(
    scores: Float64[np.ndarray, "queries results"], relevant: Bool[np.ndarray, "queries results"]
) -> Calibration | None:
    """Fit probabilities to the scores of lists; None where the scores do not say what is relevant, or all of it.

    Args:
        scores: Of the results of each query; -inf is no result.
        relevant: Whether each result is relevant.
    """
    listed = np.isfinite(scores)
    query = np.nonzero(listed)[0]
    s, y = scores[listed], relevant[listed]
    weights = 1 / listed.sum(1)[query]
    half = query % 2 == 0
    whole = fit_sigmoid(s, y, weights)
    folds = [fit_sigmoid(s[part], y[part], weights[part]) for part in (~half, half)]
    if whole is None or folds[0] is None or folds[1] is None:
        return None
    before = _probabilities(s, (1.0, 0.0))
    after = np.where(half, _probabilities(s, folds[0]), _probabilities(s, folds[1]))
    return Calibration(
        slope=whole[0],
        intercept=whole[1],
        loss=log_loss(after, y, weights),
        loss_before=log_loss(before, y, weights),
        error=calibration_error(after, y, BINS),
        error_before=calibration_error(before, y, BINS),
        threshold=_threshold(_probabilities(s, whole), y),
    )


def fit_sigmoid(scores: Pairs, relevant: Judged, weights: Pairs) -> tuple[float, float] | None:
    """Return slope and intercept of least log loss; None where none is least, or the slope is not above 0."""
    if relevant.all() or not relevant.any() or scores[relevant].min() > scores[~relevant].max():
        return None  # a slope without end would be best
    inputs = np.stack([scores, np.ones_like(scores)], 1)
    found = np.zeros(2)
    for _ in range(STEPS):
        p = _probabilities(scores, (found[0], found[1]))
        gradient = inputs.T @ (weights * (p - relevant)) / weights.sum()
        if np.abs(gradient).max() < ENOUGH:
            break
        curvature = (inputs.T * (weights * p * (1 - p))) @ inputs / weights.sum()
        if not np.linalg.cond(curvature) < 1 / ENOUGH:  # all scores are alike
            return None
        found -= np.linalg.solve(curvature, gradient)
    return (float(found[0]), float(found[1])) if found[0] > 0 else None


def log_loss(probabilities: Pairs, relevant: Judged, weights: Pairs) -> float:
    """Return the weighted mean of the log loss, in nats."""
    given = np.where(relevant, probabilities, 1 - probabilities).clip(1e-12)
    return float(-(weights * np.log(given)).sum() / weights.sum())


def calibration_error(probabilities: Pairs, relevant: Judged, bins: int) -> float:
    """Return how far the mean probability of a bin is from its share of relevant pairs, over bins of equally many."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [len(part) * abs(probabilities[part].mean() - relevant[part].mean()) for part in parts]
    return float(sum(gaps) / len(order))


def _probabilities(scores: Pairs, fit: tuple[float, float]) -> Pairs:
    found: Pairs = 1 / (1 + np.exp(-(fit[0] * scores + fit[1]).clip(-500, 500)))
    return found


def _threshold(probabilities: Pairs, relevant: Judged) -> float | None:
    order = np.argsort(-probabilities, kind="stable")
    precise = relevant[order].cumsum() / np.arange(1, len(order) + 1) >= PRECISION
    return float(probabilities[order][precise][-1]) if precise.any() else None
