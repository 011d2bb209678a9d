"""Search by an interaction head: no index knows it, so every document is scored, or a shortlist."""

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from embedtrain.ops.interaction import InteractionTask, interaction_pairs
from embedtrain.retrieval.exact import SearchResult, search_exact
from embedtrain.retrieval.ranking import best_columns, merge_candidates, no_candidates
from embedtrain.types import Interaction

DOCUMENTS_AT_ONCE = 8192


@torch.no_grad()
def search_interaction(
    weights: Interaction,
    queries: Float32[np.ndarray, "queries dim"],
    documents: Float32[np.ndarray, "documents dim"],
    num_results: int,
    *,
    task: InteractionTask = "retrieval",
) -> SearchResult:
    """Find the documents that the head scores highest; equal scores go by the lower document index.

    Args:
        weights: The head; it says how many documents the inner product proposes to it.
        queries: Of the same model.
        documents: Of the same model; may be memory-mapped.
        num_results: Results per query; no fewer documents are proposed.
        task: Which branch scores.
    """
    proposed, shortlist = None, weights.shortlist
    if shortlist is not None and shortlist < len(documents):
        found = search_exact(queries, documents, max(shortlist, num_results))
        proposed = np.sort(found.indices, axis=1)
    rows = [
        _search_one(
            weights,
            query,
            documents,
            None if proposed is None else proposed[row],
            num_results,
            task,
        )
        for row, query in enumerate(queries)
    ]
    return SearchResult(
        np.concatenate([row.indices for row in rows]), np.concatenate([row.scores for row in rows])
    )


def _search_one(
    weights: Interaction,
    query: Float32[np.ndarray, " dim"],
    documents: Float32[np.ndarray, "documents dim"],
    proposed: Int64[np.ndarray, " candidates"] | None,
    num_results: int,
    task: InteractionTask,
) -> SearchResult:
    device = weights.hidden.device
    asked = torch.from_numpy(np.array(query, dtype=np.float32)).to(device)[None]
    number = len(documents) if proposed is None else len(proposed)
    best = no_candidates(1, device)
    for start in range(0, number, DOCUMENTS_AT_ONCE):
        part = slice(start, start + DOCUMENTS_AT_ONCE)
        block = documents[part] if proposed is None else documents[proposed[part]]
        scores = _score(weights, asked, block, task)
        best = merge_candidates(best, best_columns(scores[None], num_results), start, num_results)
    indices = best.indices.cpu().numpy()
    return SearchResult(
        indices if proposed is None else proposed[indices], best.scores.cpu().numpy()
    )


def _score(
    weights: Interaction,
    query: Tensor,
    block: Float32[np.ndarray, "block dim"],
    task: InteractionTask,
) -> Tensor:
    vectors = torch.from_numpy(np.array(block, dtype=np.float32)).to(query.device)
    owners = torch.zeros(len(vectors), dtype=torch.int64, device=query.device)
    return interaction_pairs(weights, query, vectors, owners, task)
