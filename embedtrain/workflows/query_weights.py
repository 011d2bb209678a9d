"""Weights of queries that no model encodes, at the start of training: how rare each token is among the documents."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32

from embedtrain.data.tokenized import TokenizedSource
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.recipe.retrieval import Recipe


def start_query_weights(
    recipe: Recipe, model: TextModel, sources: Sequence[TokenizedSource]
) -> None:
    """Let weights of queries start at the IDF of the training documents, where the recipe asks for it."""
    if not isinstance(recipe.model, SparseConfig) or not isinstance(model, SparseEncoder):
        return
    wish, weights = recipe.model.query_weights, model.query_weights
    if wish is None or weights is None or wish.start != "idf" or weights.from_folder:
        return
    with torch.no_grad():
        weights.weight.copy_(torch.from_numpy(rarity(sources, len(weights.weight))))


def rarity(sources: Sequence[TokenizedSource], vocabulary: int) -> Float32[np.ndarray, " tokens"]:
    r"""Return BM25's $\log(1 + (N - df + 0.5) / (df + 0.5))$ of each token, over the distinct documents of all sources."""
    found, total = np.zeros(vocabulary, dtype=np.int64), 0
    for source in sources:
        total += len(source.texts["document"])
        for row in range(len(source.texts["document"])):
            found[np.unique(source.tokens("document", row))] += 1
    return np.log1p((total - found + 0.5) / (found + 0.5)).astype(np.float32)
