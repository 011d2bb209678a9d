"""Weights of a fusion, learned from judged queries and never told by those that they are measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float64, Int64

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import Qrels, rank_arrays, score_ranking
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.fusion import Pool

Weights = tuple[float, ...]
METRIC, CUTOFF = "ndcg_at_10", 10
"""What weights are chosen by."""
NUM_FOLDS = 5
STEPS = {2: 10, 3: 10, 4: 10, 5: 5, 6: 5}
"""Steps from 0 to 1 of each weight, by the number of lists: 11, 66, 286, 126 and 252 points."""


@dataclass(frozen=True)
class Judged:
    """Lists of some queries, and what is known of these."""

    pool: Pool
    query_ids: Sequence[str]
    document_ids: Sequence[str]
    qrels: Qrels


@dataclass(frozen=True)
class Tuned:
    """What cross-validation gave."""

    found: SearchResult
    """Of each query under the weights that the other folds chose."""
    folds: list[Weights]
    weights: Weights
    """Chosen by all queries: to be used, and not what was measured."""


def weight_grid(num_lists: int) -> list[Weights]:
    """Return weights that sum to 1, the nearest to equal ones first.

    Raises:
        UserError: If there are too few or too many lists for a grid.
    """
    if num_lists not in STEPS:
        cure = "Give weights, or leave systems out"
        raise UserError("--fuse tuned", "weighs 2 to 6 systems", got=num_lists, cure=cure)
    steps = STEPS[num_lists]
    points = [one for one in product(range(steps + 1), repeat=num_lists) if sum(one) == steps]
    equal = steps / num_lists
    points.sort(key=lambda one: (sum((part - equal) ** 2 for part in one), one))
    return [tuple(part / steps for part in one) for one in points]


def score_grid(judged: Judged, grid: Sequence[Weights]) -> Float64[np.ndarray, "points queries"]:
    """Return nDCG@10 of every query under every point."""
    rows = []
    for weights in grid:
        found = judged.pool.add_up(weights, CUTOFF)
        ids = judged.query_ids, judged.document_ids
        ranking = rank_arrays(judged.qrels, *ids, found.indices, found.scores)
        by_query = score_ranking(ranking, [METRIC])[METRIC]
        rows.append([by_query[query] for query in judged.query_ids])
    return np.array(rows, dtype=np.float64)


def choose(scores: Float64[np.ndarray, "points queries"]) -> int:
    """Return the point with the best mean; of equal ones the first, which is nearest to equal weights."""
    means = scores.mean(axis=1)
    return int(np.flatnonzero(means >= means.max() - 1e-12)[0])


def assign_folds(
    clusters: Sequence[str], num_folds: int = NUM_FOLDS, seed: int = 0
) -> Int64[np.ndarray, " queries"]:
    """Put the queries of a cluster into one fold; clusters are dealt out in a drawn order.

    Raises:
        UserError: If there are fewer clusters than two folds need.
    """
    names, cluster_of = np.unique(np.array(clusters), return_inverse=True)
    if len(names) < 2 * num_folds:
        cure = "Name another split with --tune-on, or give weights"
        problem = f"needs {2 * num_folds} queries or clusters for {num_folds} folds"
        raise UserError("--fuse tuned", problem, got=len(names), cure=cure)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(names))
    fold_of = np.empty(len(names), dtype=np.int64)
    fold_of[order] = np.arange(len(names)) % num_folds
    folds: Int64[np.ndarray, " queries"] = fold_of[cluster_of]
    return folds


def cross_validate(judged: Judged, folds: Int64[np.ndarray, " queries"], num_results: int) -> Tuned:
    """Fuse each query under the weights that are best for the queries of the other folds."""
    num_lists = len(judged.pool.values)
    grid = weight_grid(num_lists)
    scores = score_grid(judged, grid)
    chosen = [grid[choose(scores[:, folds != fold])] for fold in range(int(folds.max()) + 1)]
    parts = [judged.pool.add_up(weights, num_results) for weights in chosen]
    found = SearchResult.empty(*parts[0].indices.shape)
    for fold, part in enumerate(parts):
        found.indices[folds == fold] = part.indices[folds == fold]
        found.scores[folds == fold] = part.scores[folds == fold]
    return Tuned(found, chosen, grid[choose(scores)])


def fit_weights(judged: Judged) -> Weights:
    """Return the weights that are best for these queries; measure them on others."""
    grid = weight_grid(len(judged.pool.values))
    return grid[choose(score_grid(judged, grid))]
