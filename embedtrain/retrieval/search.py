"""Exact search, whether a text has one vector or several."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult, search_exact
from embedtrain.retrieval.dense.pair_head import search_interaction
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.types import Interaction, TokenVectors


def search(
    queries: Float[np.ndarray, "queries dim"] | TokenVectors,
    documents: Float[np.ndarray, "documents dim"] | Float[Tensor, "documents dim"] | TokenVectors,
    num_results: int,
    interaction: Interaction | None = None,
    device: torch.device | str = "cpu",
) -> SearchResult:
    """Return the best documents of each query, best first, ties by lower row number.

    ``interaction`` scores pairs of vectors in place of the inner product. ``device`` is where scores are computed,
    usually the model's: :func:`embedtrain.retrieval.dense.exact.resident` keeps documents there.
    """
    if isinstance(queries, TokenVectors) and isinstance(documents, TokenVectors):
        return ExactIndex(documents, device=device).search(queries, num_results)
    if isinstance(queries, TokenVectors) or isinstance(documents, TokenVectors):
        raise UserError(
            "search",
            "needs vectors of one kind on both sides",
            cure="Encode queries and documents with the same model",
        )
    if interaction is not None:
        assert isinstance(documents, np.ndarray)
        return search_interaction(interaction, queries, documents, num_results)
    return search_exact(queries, documents, num_results, device=device)
