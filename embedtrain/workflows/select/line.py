"""The line from a start to trained weights, and which point of it to ship."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from embedtrain.evaluation.measures.statistics import standard_error
from embedtrain.models.edits.merge import Weights, merge_weights
from embedtrain.models.encoder import TextEncoder

COARSE = (0.0, 0.25, 0.5, 0.75, 1.0)
FINE = 0.125
"""Points this far from the best of the coarse ones are tried as well."""
LEAST_GUARD = -0.01
"""What a guarded data set may lose."""


@dataclass(frozen=True)
class Point:
    """Weights that were measured.

    Attributes:
        name: What they are.
        scores: The main score of each query of the data that decide.
        alpha: Where on the line, 0 the start and 1 the trained weights; None beside it.
        guards: Of each guarded data set, the main score less the base's.
    """

    name: str
    scores: Sequence[float]
    alpha: float | None = None
    guards: dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """What it is judged by."""
        return math.fsum(self.scores) / len(self.scores)

    @property
    def is_safe(self) -> bool:
        """Whether no guarded data set loses more than it may."""
        return min(self.guards.values(), default=0.0) >= LEAST_GUARD


def mixed(start: Weights, trained: Weights, alpha: float) -> Weights:
    """Return ``(1 - alpha) start + alpha trained``; what the start has not, or in another shape, is the trained one's.

    0 and 1 give the very weights of the start and of the trained model.
    """
    fitting = {
        name: start[name] if name in start and start[name].shape == weight.shape else weight
        for name, weight in trained.items()
    }
    return merge_weights([fitting, trained], [1 - alpha, alpha], "linear")


def fill(model: TextEncoder, weights: Weights) -> TextEncoder:
    """Give a model weights of its own names, and return it."""
    model.load_state_dict(dict(weights))
    return model


def walk(measure: Callable[[float], Point]) -> list[Point]:
    """Measure the line: coarsely, then on both sides of its best safe point; by ``alpha``."""
    points = {alpha: measure(alpha) for alpha in COARSE}
    top = best_of(list(points.values())).alpha
    assert top is not None
    for alpha in (top - FINE, top + FINE):
        if 0 < alpha < 1:
            points[alpha] = measure(alpha)
    return [points[alpha] for alpha in sorted(points)]


def best_of(points: Sequence[Point]) -> Point:
    """Return the best safe point, of equal ones the first; of none that is safe the first."""
    safe = [point for point in points if point.is_safe] or points[:1]
    return max(safe, key=lambda point: point.mean)


def first_good(points: Sequence[Point], errors: float) -> Point:
    """Return the first safe point that is within so many standard errors of the best safe one.

    The error is that of the mean difference per query. What comes first is what is believed without data, at a cost that
    the data cannot tell from none: nearer to the start less is forgotten, and further from it more is learned.
    """
    best = best_of(points)
    for point in points:
        missing = np.array(best.scores) - np.array(point.scores)
        if point.is_safe and missing.mean() <= errors * standard_error(missing):
            return point
    return best
