"""Search by an interaction head: no index knows it, so every document is scored, or a shortlist."""

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from embedtrain.interaction_types import Interaction
from embedtrain.ops.interaction import interaction_pairs, interaction_scores
from embedtrain.precision import computing
from embedtrain.retrieval.dense.exact import (
    SearchResult,
    best_columns,
    merge_candidates,
    no_candidates,
    refuse_nan,
    search_exact,
)

DOCUMENTS_AT_ONCE = 256
"""Few, so that a block meets many queries: its part of the hidden layer is computed once for all of these."""
HIDDEN_AT_ONCE = 2**22
"""Coordinates of hidden layers of pairs held at once (16 MiB in float32)."""


@torch.no_grad()
def search_interaction(
    weights: Interaction,
    queries: Float32[np.ndarray, "queries dim"],
    documents: Float32[np.ndarray, "documents dim"],
    num_results: int,
) -> SearchResult:
    """Find the documents that the head scores highest, in float32; equal scores go by the lower document index.

    Args:
        weights: The head; it says how many documents the inner product proposes to it.
        queries: Of the same model.
        documents: Of the same model; may be memory-mapped.
        num_results: Results per query; no fewer documents are proposed.
    """
    shortlist, device = weights.shortlist, weights.hidden.device
    with computing("fp32", device.type):
        if shortlist is None or shortlist >= len(documents):
            return _search_all(weights, queries, documents, num_results)
        found = search_exact(queries, documents, max(shortlist, num_results), device=device)
        proposed = np.sort(found.indices, axis=1)
        return _search_proposed(weights, queries, documents, proposed, num_results)


def _search_all(
    weights: Interaction,
    queries: Float32[np.ndarray, "queries dim"],
    documents: Float32[np.ndarray, "documents dim"],
    num_results: int,
) -> SearchResult:
    device = weights.hidden.device
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
) -> SearchResult:
    device, count = weights.hidden.device, proposed.shape[1]
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
    return max(1, HIDDEN_AT_ONCE // (documents * len(weights.hidden)))


def _load(vectors: Float32[np.ndarray, "texts dim"], device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(vectors, dtype=np.float32)).to(device)
