r"""How much each of several documents helps a language model to write an answer, by leaving some out.

$L(S)$ is the mean log-probability of the answer's tokens behind the documents $S$ and the query. Documents help one
another or say the same: ``loo`` is $L(\text{all}) - L(\text{all} \setminus i)$ and calls each of two equal documents
useless; ``linear`` and ``shapley`` look at other sets as well.
Source: the perturbation of SCARLet (2025), https://arxiv.org/abs/2504.00573, whose estimator the paper's abstract leaves
open; Shapley (1953).
"""

from collections.abc import Callable, Mapping
from itertools import product
from math import factorial

import numpy as np
from jaxtyping import Float64

from embedtrain.encoding.language.settings import Attribution

Mask = tuple[bool, ...]
"""Which documents stand before the query."""
MOST_EXACT = 6
"""Documents up to which all sets are read."""
SETS_PER_DOCUMENT = 4
ALL_SETS = 4
"""Documents up to which ``linear`` reads all sets."""


def masks_for(kind: Attribution, size: int, seed: int = 0) -> list[Mask]:
    """Return the sets of documents whose likelihood is needed; the same at each call.

    Args:
        kind: How documents are judged; ``shapley`` of more than six is ``linear``.
        size: Number of documents.
        seed: Of the random halves.
    """
    if kind == "loo":
        return [(True,) * size, *(tuple(n != left for n in range(size)) for left in range(size))]
    if size <= (MOST_EXACT if kind == "shapley" else ALL_SETS):
        return list(product((True, False), repeat=size))
    draws = np.random.default_rng([seed, size]).random((SETS_PER_DOCUMENT * size, size)) < 0.5
    drawn = [tuple(map(bool, row)) for row in draws]
    return list(dict.fromkeys([(True,) * size, (False,) * size, *drawn]))


def attribute(
    kind: Attribution, likelihoods: Mapping[Mask, float]
) -> Float64[np.ndarray, " documents"]:
    """Return how much each document adds to the likelihood of the answer.

    Args:
        kind: As it was given to :func:`masks_for`.
        likelihoods: Of each of its sets.
    """
    size = len(next(iter(likelihoods)))
    rules: Mapping[str, Callable[[], Float64[np.ndarray, " documents"]]] = {
        "loo": lambda: _left_out(likelihoods, size),
        "linear": lambda: _fitted(likelihoods),
        "shapley": lambda: (
            _shapley(likelihoods, size) if size <= MOST_EXACT else _fitted(likelihoods)
        ),
    }
    return rules[kind]()


def _left_out(likelihoods: Mapping[Mask, float], size: int) -> Float64[np.ndarray, " documents"]:
    whole = likelihoods[(True,) * size]
    without = [likelihoods[tuple(n != left for n in range(size))] for left in range(size)]
    return whole - np.array(without)


def _fitted(likelihoods: Mapping[Mask, float]) -> Float64[np.ndarray, " documents"]:
    """Fit a constant and a number for each document that stands there, by least squares."""
    sets = np.array(list(likelihoods), dtype=np.float64)
    terms = np.column_stack([np.ones(len(sets)), sets])
    found = np.linalg.lstsq(terms, np.array(list(likelihoods.values())), rcond=None)[0]
    return np.asarray(found[1:], dtype=np.float64)


def _shapley(likelihoods: Mapping[Mask, float], size: int) -> Float64[np.ndarray, " documents"]:
    """Average what each document adds over all orders in which documents could come."""
    found = np.zeros(size)
    for mask, value in likelihoods.items():
        present = sum(mask)
        for number, stands in enumerate(mask):
            if not stands:
                weight = factorial(present) * factorial(size - present - 1) / factorial(size)
                joined = (*mask[:number], True, *mask[number + 1 :])
                found[number] += weight * (likelihoods[joined] - value)
    return found
