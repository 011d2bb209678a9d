"""Search by what scores pairs: no index knows it, so every document is scored, a shortlist, or neighbours of the best."""

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from embedtrain.interaction_types import (
    ComparingNetwork,
    GraphSearch,
    Interaction,
    JointNetwork,
    QueryNetwork,
)
from embedtrain.ops.interaction import interaction_pairs, interaction_scores, numbers_per_pair
from embedtrain.precision import computing
from embedtrain.retrieval.dense.exact import (
    SearchResult,
    best_columns,
    merge_candidates,
    no_candidates,
    refuse_nan,
    search_exact,
)
from embedtrain.retrieval.dense.graph import NeighbourGraph, Walked, walk

DOCUMENTS_AT_ONCE = 256
"""Few, so that a block meets many queries: its part of the hidden layer is computed once for all of these."""
HIDDEN_AT_ONCE = 2**22
"""Coordinates of hidden layers of pairs held at once (16 MiB in float32)."""


@torch.no_grad()
def search_interaction(
    weights: Interaction,
    queries: Float32[np.ndarray, "queries numbers"],
    documents: Float32[np.ndarray, "documents dim"] | NeighbourGraph,
    num_results: int,
    device: torch.device | str,
) -> SearchResult:
    """Find the documents that score highest, in float32; equal scores go by the lower document index.

    Args:
        weights: What scores; it says how many documents the inner product proposes to it, or how neighbours are followed.
        queries: Of the same model.
        documents: Of the same model; may be memory-mapped. :func:`neighbours_of` keeps their neighbours.
        num_results: Results per query; no fewer documents are proposed.
        device: Where to compute.
    """
    device = torch.device(device)
    vectors = documents.vectors if isinstance(documents, NeighbourGraph) else documents
    shortlist = weights.shortlist if isinstance(weights, JointNetwork | ComparingNetwork) else None
    with computing("fp32", device.type):
        if (settings := graph_of(weights)) is not None:
            graph = neighbours_of(documents, settings, device)
            return search_graph(weights, queries, graph, num_results, settings, device).result
        if shortlist is None or shortlist >= len(vectors):
            return _search_all(weights, queries, vectors, num_results, device)
        found = search_exact(queries, vectors, max(shortlist, num_results), device=device)
        proposed = np.sort(found.indices, axis=1)
        return _search_proposed(weights, queries, vectors, proposed, num_results, device)


def graph_of(weights: Interaction) -> GraphSearch | None:
    """Return how documents are searched along their neighbours, where they are."""
    return weights.graph if isinstance(weights, QueryNetwork) else None


def neighbours_of(
    documents: Float32[np.ndarray, "documents dim"] | NeighbourGraph,
    settings: GraphSearch,
    device: torch.device | str,
) -> NeighbourGraph:
    """Return documents with their neighbours, which are found where they are not known."""
    if isinstance(documents, NeighbourGraph):
        return documents
    return NeighbourGraph.of(documents, settings.neighbours, device)


@torch.no_grad()
def search_graph(
    weights: Interaction,
    queries: Float32[np.ndarray, "queries numbers"],
    graph: NeighbourGraph,
    num_results: int,
    settings: GraphSearch,
    device: torch.device | str,
) -> Walked:
    """Search along the neighbours of documents."""
    asked = _load(queries, torch.device(device))

    def score(query: int, rows: Int64[np.ndarray, " rows"]) -> Float32[np.ndarray, " rows"]:
        found = interaction_scores(
            weights, asked[query : query + 1], _load(graph.vectors[rows], asked.device)
        )[0]
        values: Float32[np.ndarray, " rows"] = found.cpu().numpy()
        refuse_nan(values[:, None])
        return values

    return walk(graph, score, len(queries), num_results, settings)


def _search_all(
    weights: Interaction,
    queries: Float32[np.ndarray, "queries numbers"],
    documents: Float32[np.ndarray, "documents dim"],
    num_results: int,
    device: torch.device,
) -> SearchResult:
    asked = torch.split(_load(queries, device), _rows_at_once(weights, DOCUMENTS_AT_ONCE))
    best = [no_candidates(len(block), device) for block in asked]
    for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
        block = _load(documents[start : start + DOCUMENTS_AT_ONCE], device)
        for number, some in enumerate(asked):
            found = best_columns(interaction_scores(weights, some, block), num_results)
            best[number] = merge_candidates(best[number], found, start, num_results)
    return SearchResult.of_blocks(best)


def _search_proposed(
    weights: Interaction,
    queries: Float32[np.ndarray, "queries dim"],
    documents: Float32[np.ndarray, "documents dim"],
    proposed: Int64[np.ndarray, "queries candidates"],
    num_results: int,
    device: torch.device,
) -> SearchResult:
    count = proposed.shape[1]
    at_once = _rows_at_once(weights, count)
    indices, scores = [], []
    for start in range(0, len(queries), at_once):
        rows = proposed[start : start + at_once]
        asked = _load(queries[start : start + at_once], device)
        owners = torch.arange(len(rows), device=device).repeat_interleave(count)
        candidates = _load(documents[rows.ravel()], device)
        found = interaction_pairs(weights, asked, candidates, owners).view(rows.shape)
        best = best_columns(found, num_results)
        indices.append(np.take_along_axis(rows, best.indices.cpu().numpy(), axis=1))
        scores.append(best.scores.cpu().numpy())
        refuse_nan(scores[-1])
    return SearchResult(np.concatenate(indices), np.concatenate(scores))


def _rows_at_once(weights: Interaction, documents: int) -> int:
    """Return how many queries meet so many documents each."""
    return max(1, HIDDEN_AT_ONCE // (documents * numbers_per_pair(weights)))


def _load(vectors: Float32[np.ndarray, "texts dim"], device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(vectors, dtype=np.float32)).to(device)
