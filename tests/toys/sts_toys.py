"""Scored pairs whose similarities are given, for tests of objectives that learn from scores."""

import torch
from objective_toys import outputs_of_scores

from embedtrain.types import RetrievalOutputs


def pairs_of(similarity: list[float], labels: list[float]) -> RetrievalOutputs:
    """Return one pair per similarity, which has the label of the same place."""
    return outputs_of_scores([[value] for value in similarity], [[value] for value in labels])


def pairs_of_vectors(
    query: torch.Tensor, document: torch.Tensor, labels: list[float]
) -> RetrievalOutputs:
    """Return pairs with vectors of one's own."""
    outputs = pairs_of([0.0] * len(query), labels)
    return RetrievalOutputs(query, document, outputs.relevance)
