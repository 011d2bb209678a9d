"""What a sparse model starts training with: weights of queries that no model encodes, and not too many entries."""

from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Integer
from torch import Tensor

from embedtrain.contract.texts import Tokenization, join_texts
from embedtrain.data.tokenized import TokenizedSource
from embedtrain.errors import UserError
from embedtrain.files import read_json
from embedtrain.models.chunking import Execution
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.vocabulary_head import VocabularyHead
from embedtrain.models.text_model import TextModel
from embedtrain.progress import console
from embedtrain.recipe.retrieval import Recipe
from embedtrain.workflows.encode.file import DOCUMENT_COLUMNS, read_texts

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
    if wish is not None and weights is not None and not weights.from_folder:
        found = _starting_weights(wish.start, model.tokenization, len(weights.weight), sources)
        with torch.no_grad():
            weights.weight.copy_(torch.from_numpy(found))
    sample = _sample(sources)
    if recipe.model.start_entries is not None:
        set_entries(model, sample, recipe.model.start_entries)
    share = float((_encoded(model, sample) > 0).float().mean())
    if share > TOO_MANY:
        console.print(
            f"Documents start with {share:.0%} of all words, which training seldom brings down; set "
            "model.start_entries=200 to lower the bias of all words alike before the first step"
        )


def _starting_weights(
    start: str, tokenization: Tokenization, vocabulary: int, sources: Sequence[TokenizedSource]
) -> Float32[np.ndarray, " tokens"]:
    """Return what each token of a query weighs before training."""
    if start == "ones":
        return np.ones(vocabulary, dtype=np.float32)
    if start == "idf":
        documents = (
            source.tokens("document", row)
            for source in sources
            for row in range(len(source.texts["document"]))
        )
        return rarity(documents, vocabulary)
    path = Path(start)
    if path.suffix == ".json":
        return read_token_weights(path, tokenization.tokenizer, vocabulary)
    texts = list(dict.fromkeys(read_texts(path, None, DOCUMENT_COLUMNS)))
    return rarity(tokenization(texts, "document"), vocabulary)


def rarity(
    documents: Iterable[Integer[np.ndarray, " _"]], vocabulary: int
) -> Float32[np.ndarray, " tokens"]:
    r"""Return BM25's $\log(1 + (N - df + 0.5) / (df + 0.5))$ of each token, over distinct documents."""
    found, total = np.zeros(vocabulary, dtype=np.int64), 0
    for ids in documents:
        total += 1
        found[np.unique(ids)] += 1
    return np.log1p((total - found + 0.5) / (found + 0.5)).astype(np.float32)


def read_token_weights(
    path: Path,
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    vocabulary: int,
) -> Float32[np.ndarray, " tokens"]:
    """Read the weights of tokens, ``{"token": weight}``; tokens that the file lacks weigh 0.

    Raises:
        UserError: If it is no such file, a weight is below 0 or no number, or most tokens are not the tokenizer's.
    """
    said, known = read_json(path), tokenizer.get_vocab()
    if not isinstance(said, dict) or not said:
        raise UserError(path, "is no object of tokens and weights", cure='Write {"token": 1.5}')
    weights = np.zeros(vocabulary, dtype=np.float32)
    for token, weight in said.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < inf:
            raise UserError(path, f"gives the token {token!r} no weight of 0 or more", got=weight)
        if token in known:
            weights[known[token]] = weight
    strange = [token for token in said if token not in known]
    if len(strange) > len(said) / 2:
        raise UserError(
            path, "holds tokens of another tokenizer", got=strange[:3], cure="Take that of the backbone"
        )  # fmt: skip
    return weights


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
