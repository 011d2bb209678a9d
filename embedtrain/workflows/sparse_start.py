"""What a sparse model starts training with: weights of queries that no model encodes, and not too many entries."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from embedtrain.contract.texts import join_texts
from embedtrain.data.tokenized import TokenizedSource
from embedtrain.errors import UserError
from embedtrain.models.chunking import Execution
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.vocabulary_head import VocabularyHead
from embedtrain.models.text_model import TextModel
from embedtrain.progress import console
from embedtrain.recipe.retrieval import Recipe

LOOKED_AT = 64
"""Documents that are encoded before the first step."""
TOO_MANY = 0.25
"""Share of all words in a document, on average, from which training seldom comes back."""


def start_sparse(recipe: Recipe, model: TextModel, sources: Sequence[TokenizedSource]) -> None:
    """Give a sparse model what its recipe lets it start with, and say where it starts with too many entries.

    Raises:
        UserError: If the recipe wants a number of entries that the head cannot be set to.
    """
    if not isinstance(recipe.model, SparseConfig) or not isinstance(model, SparseEncoder):
        return
    wish, weights = recipe.model.query_weights, model.query_weights
    asked = wish is not None and wish.start == "idf"
    if asked and weights is not None and not weights.from_folder:
        with torch.no_grad():
            weights.weight.copy_(torch.from_numpy(rarity(sources, len(weights.weight))))
    sample = _sample(sources)
    if recipe.model.start_entries is not None:
        set_entries(model, sample, recipe.model.start_entries)
    share = float((_encoded(model, sample) > 0).float().mean())
    if share > TOO_MANY:
        console.print(
            f"Documents start with {share:.0%} of all words, which training seldom brings down; set "
            "model.start_entries=200 to lower the bias of all words alike before the first step"
        )


def rarity(sources: Sequence[TokenizedSource], vocabulary: int) -> Float32[np.ndarray, " tokens"]:
    r"""Return BM25's $\log(1 + (N - df + 0.5) / (df + 0.5))$ of each token, over the distinct documents of all sources."""
    found, total = np.zeros(vocabulary, dtype=np.int64), 0
    for source in sources:
        total += len(source.texts["document"])
        for row in range(len(source.texts["document"])):
            found[np.unique(source.tokens("document", row))] += 1
    return np.log1p((total - found + 0.5) / (found + 0.5)).astype(np.float32)


def set_entries(model: SparseEncoder, documents: Sequence[np.ndarray], wanted: int) -> None:
    """Lower the bias of all words alike until documents have so many entries on average; it is never raised.

    Raises:
        UserError: If the head has no bias.
    """
    assert isinstance(model.head, VocabularyHead)
    bias = model.head.language.bias
    if bias is None:
        raise UserError(
            "model.start_entries",
            "needs a head with a bias, which this backbone's lacks",
            cure="Leave it out, and set model.document.top_k",
        )
    # Both maps behind the maximum are monotone: the weight that is to become 0 says which logit is.
    largest = _encoded(model, documents)
    kept = min(wanted * len(documents), largest.numel())
    threshold = largest.flatten().topk(kept).values[-1]
    for _ in range(2 if model.contract.activation == "log1p_twice" else 1):
        threshold = threshold.expm1()
    with torch.no_grad():
        bias -= threshold.clamp_min(0)


def _sample(sources: Sequence[TokenizedSource]) -> list[np.ndarray]:
    first = sources[0]
    number = min(LOOKED_AT, len(first.texts["document"]))
    return [first.tokens("document", row) for row in range(number)]


@torch.no_grad()
def _encoded(model: SparseEncoder, documents: Sequence[np.ndarray]) -> Float[Tensor, "texts dim"]:
    texts = join_texts(documents).to(model.device)
    training = model.training
    model.eval()
    try:
        return model.embed(texts, Execution(chunk_tokens=4096))
    finally:
        model.train(training)
