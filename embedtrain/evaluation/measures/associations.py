"""Whether vectors of one set of words lie nearer to one idea than those of another set.

Source: Caliskan et al. (2017), https://arxiv.org/abs/1608.07187 (WEAT). Its p counts partitions above the observed
one; here those that equal it count too, the observed one among them, so p is never 0.
"""

import math
from itertools import combinations

import numpy as np
from jaxtyping import Float64, Int64

ENUMERATED = 20_000
"""Up to so many partitions all are tried; beyond, 10,000 are drawn."""
DRAWN = 10_000

Vectors = Float64[np.ndarray, "words dim"]
Associations = Float64[np.ndarray, " words"]


def associations(
    words: Vectors,
    first: Float64[np.ndarray, "first dim"],
    second: Float64[np.ndarray, "second dim"],
) -> Associations:
    r"""Return $s(w) = \mathrm{mean}_a \cos(w, a) - \mathrm{mean}_b \cos(w, b)$ of each word; a zero vector has cosine 0."""
    unit = [_normalise(one) for one in (words, first, second)]
    means: Associations = unit[0] @ (unit[1].mean(0) - unit[2].mean(0))
    return means


def effect_size(
    first: Float64[np.ndarray, " first"], second: Float64[np.ndarray, " second"]
) -> float:
    r"""Return $(\bar s_X - \bar s_Y) / \mathrm{sd}(s)$, the deviation that of all with one degree of freedom less.

    All alike gives 0.
    """
    spread = float(np.concatenate([first, second]).std(ddof=1))
    return 0.0 if spread == 0 else float(first.mean() - second.mean()) / spread


def partition_p_value(
    first: Associations, second: Associations, generator: np.random.Generator
) -> float:
    """Return how often a random division into two sets of this size is as far apart, one-sided.

    Exact where there are at most 20,000 divisions; else of 10,000 drawn ones and the observed one.
    """
    number, both = len(first), np.concatenate([first, second])
    # Sums that are equal on paper may differ in their last bits; they must count as reached.
    reached = first.sum() - 1e-12 * np.abs(both).sum()
    if math.comb(2 * number, number) <= ENUMERATED:
        rows: Int64[np.ndarray, "divisions words"] = np.array(
            list(combinations(range(2 * number), number)), dtype=np.int64
        )
        return float((both[rows].sum(1) >= reached).mean())
    drawn = np.tile(np.arange(2 * number), (DRAWN, 1))
    chosen = generator.permuted(drawn, axis=1)[:, :number]
    return (1 + int((both[chosen].sum(1) >= reached).sum())) / (DRAWN + 1)


def _normalise(vectors: Float64[np.ndarray, "rows dim"]) -> Float64[np.ndarray, "rows dim"]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float64[np.ndarray, "rows dim"] = vectors / np.where(norms == 0, 1, norms)
    return unit
