"""Scores of queries and documents, whether a text has one vector or several.

Objectives that need scores take them from here, so that each of them serves dense and late-interaction
models alike. Inner products for one vector per text, MaxSim for several; float32 at least.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.backend import Backend
from embedtrain.ops.maxsim import maxsim_grouped_packed, maxsim_packed
from embedtrain.types import Embeddings, TokenEmbeddings


def all_scores(
    query: Embeddings, document: Embeddings, *, backend: Backend = "auto"
) -> Float[Tensor, "queries documents"]:
    """Score every query against every document.

    This stores the scores: use :func:`embedtrain.ops.infonce.infonce` where they are only summed up.
    """
    if isinstance(query, TokenEmbeddings) and isinstance(document, TokenEmbeddings):
        return maxsim_packed(
            query.tokens, query.lengths, document.tokens, document.lengths, backend=backend
        )
    queries, documents = _vectors(query, document)
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ documents.T


def pair_scores(
    query: Embeddings,
    document: Embeddings,
    owners: Int64[Tensor, " documents"],
    *,
    backend: Backend = "auto",
) -> Float[Tensor, " documents"]:
    """Score document ``n`` against query ``owners[n]`` only, as distillation and reranking do."""
    if isinstance(query, TokenEmbeddings) and isinstance(document, TokenEmbeddings):
        return maxsim_grouped_packed(
            query.tokens,
            query.lengths,
            document.tokens,
            document.lengths,
            owners,
            backend=backend,
        )
    queries, documents = _vectors(query, document)
    with torch.autocast(queries.device.type, enabled=False):
        return (queries[owners] * documents).sum(1)


def take(embeddings: Embeddings, rows: Int64[Tensor, " chosen"]) -> Embeddings:
    """Return the embeddings of the texts at ``rows``, in that order."""
    if isinstance(embeddings, TokenEmbeddings):
        return embeddings.select(rows)
    return embeddings[rows]


def _vectors(query: Embeddings, document: Embeddings) -> tuple[Tensor, Tensor]:
    if isinstance(query, TokenEmbeddings) or isinstance(document, TokenEmbeddings):
        raise UserError(
            "similarity",
            "needs embeddings of one kind on both sides",
            cure="Encode queries and documents with the same model",
        )
    half = (torch.bfloat16, torch.float16)
    return tuple(x.float() if x.dtype in half else x for x in (query, document))  # type: ignore[return-value]
