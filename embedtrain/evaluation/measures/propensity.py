"""Precision that rare labels weigh more in: what is seldom labelled is seldom missed by chance.

Source: Jain et al. (2016), Extreme Multi-label Loss Functions, https://doi.org/10.1145/2939672.2939756.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

A, B = 0.55, 1.5
"""Constants of the paper for data in general."""


def propensities(
    counts: Int64[np.ndarray, " labels"], num_rows: int, a: float = A, b: float = B
) -> Float64[np.ndarray, " labels"]:
    r"""Return the chance that a label which fits is given, $1 / (1 + C e^{-A \ln(N_l + B)})$, from training rows.

    $C = (\ln N - 1)(B + 1)^A$ with N rows, of which $N_l$ have label l. Needs three rows at least, or C is not positive.
    """
    scale = (math.log(num_rows) - 1) * (b + 1) ** a
    chances: Float64[np.ndarray, " labels"] = 1 / (1 + scale * np.exp(-a * np.log(counts + b)))
    return chances


def propensity_precision(
    rankings: Sequence[Sequence[str]],
    relevant: Sequence[set[str]],
    chances: Mapping[str, float],
    cutoff: int,
) -> float:
    r"""Return PSP@k of all queries: $\sum_i \sum_{l \in \mathrm{top}_k} y_{il} / p_l$ over the largest it could be.

    The division is of sums, not of each query's own.
    """
    gained = best = 0.0
    for ranking, labels in zip(rankings, relevant, strict=True):
        gained += sum(1 / chances[label] for label in ranking[:cutoff] if label in labels)
        best += sum(sorted((1 / chances[label] for label in labels), reverse=True)[:cutoff])
    return gained / best
