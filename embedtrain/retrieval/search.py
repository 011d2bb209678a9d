"""Exact search, whether a text has one vector, several, or a sparse one."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.interaction_types import Interaction
from embedtrain.retrieval.dense.exact import SearchResult, resident, search_exact
from embedtrain.retrieval.dense.graph import NeighbourGraph
from embedtrain.retrieval.dense.pair_head import graph_of, neighbours_of, search_interaction
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.retrieval.sparse.exact import InvertedIndex
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

Vectors = Float[np.ndarray, "_ _"] | TokenVectors | SparseVectors
Documents = Vectors | Float[Tensor, "documents dim"] | InvertedIndex | NeighbourGraph


def search(
    queries: Vectors,
    documents: Documents,
    num_results: int,
    interaction: Interaction | None = None,
    device: torch.device | str = "cpu",
) -> SearchResult:
    """Return the best documents of each query, best first, ties by lower row number.

    ``interaction`` scores pairs of vectors in place of the inner product. ``device`` is where scores are computed,
    usually the model's: :func:`for_many_searches` keeps documents there. A document that shares no word with a
    sparse query is no result of it.
    """
    if isinstance(queries, SparseVectors):
        lists = InvertedIndex.of(documents) if isinstance(documents, SparseVectors) else documents
        if isinstance(lists, InvertedIndex):
            return lists.search(queries, num_results)
    if isinstance(queries, TokenVectors) and isinstance(documents, TokenVectors):
        return ExactIndex(documents, device=device).search(queries, num_results)
    if isinstance(queries, np.ndarray) and interaction is not None:
        assert isinstance(documents, np.ndarray | NeighbourGraph)
        return search_interaction(interaction, queries, documents, num_results, device)
    if not isinstance(queries, np.ndarray) or not isinstance(documents, np.ndarray | Tensor):
        raise UserError(
            "search",
            "needs vectors of one kind on both sides",
            cure="Encode queries and documents with the same model",
        )
    return search_exact(queries, documents, num_results, device=device)


def for_many_searches(
    documents: Vectors,
    interaction: Interaction | None,
    device: torch.device | str,
) -> Documents:
    """Return documents as many calls of :func:`search` want them: on a GPU once and for all, if they fit well there.

    Sparse ones become inverted lists. Of those that ``interaction`` searches along their neighbours, these are found.
    Documents of several vectors, and those that it scores one by one, stay as they are.
    """
    if isinstance(documents, SparseVectors):
        return InvertedIndex.of(documents)
    if isinstance(documents, np.ndarray) and interaction is None:
        return resident(documents, device)
    settings = None if interaction is None else graph_of(interaction)
    if isinstance(documents, np.ndarray) and settings is not None:
        return neighbours_of(documents, settings, device)
    return documents
