"""Gates: a learned factor per word of a document, and what follows from it (ColBERTer).

Source: Hofstätter et al. (2022), https://arxiv.org/abs/2203.13088.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.models.pooling import positions
from embedtrain.types import TokenEmbeddings


def mean_gate(
    documents: TokenEmbeddings, owners: Int64[Tensor, " documents"], num_queries: int
) -> Float[Tensor, ""] | None:
    """Return the mean gate of a document's words, averaged over each query's documents, then over queries.

    A mean over all words would not be the mean of the ranks' means; this one is, as the loss is.
    """
    if documents.gates is None:
        return None
    text = torch.arange(len(documents), device=owners.device).repeat_interleave(documents.lengths)
    zeros = documents.gates.new_zeros(len(documents))
    per_document = zeros.index_add(0, text, documents.gates) / documents.lengths
    num_owned = torch.bincount(owners, minlength=num_queries)
    return (per_document / num_owned[owners]).sum() / num_queries


def open_only(embeddings: TokenEmbeddings) -> TokenEmbeddings:
    """Drop the vectors whose gate is closed; a text that would lose all keeps its first."""
    assert embeddings.gates is not None
    text = torch.arange(len(embeddings), device=embeddings.lengths.device)
    text = text.repeat_interleave(embeddings.lengths)
    kept = embeddings.gates > 0
    num_open = torch.zeros_like(embeddings.lengths).index_add_(0, text, kept.long())
    kept |= (positions(embeddings.lengths) == 0) & (num_open[text] == 0)
    lengths = torch.zeros_like(embeddings.lengths).index_add_(0, text, kept.long())
    ids = None if embeddings.ids is None else embeddings.ids[kept]
    return TokenEmbeddings(
        embeddings.tokens[kept], lengths, ids, embeddings.cls, embeddings.exact_match
    )
