"""Scores of queries and documents, whether a text has one vector or several.

Objectives that need scores take them from here, so that each of them serves dense and late-interaction
models alike. Inner products for one vector per text, MaxSim for several; float32 at least.
"""

from dataclasses import replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.backend import Backend
from embedtrain.ops.maxsim.scores import maxsim, maxsim_grouped
from embedtrain.packed import upload
from embedtrain.types import Embeddings, TokenEmbeddings

Kind = TypeVar("Kind", Tensor, TokenEmbeddings)


def all_scores(
    query: Embeddings, document: Embeddings, *, backend: Backend = "auto"
) -> Float[Tensor, "queries documents"]:
    """Score every query against every document.

    This stores the scores: use :func:`embedtrain.ops.infonce.loss.infonce` where they are only summed up.
    """
    if isinstance(query, TokenEmbeddings) and isinstance(document, TokenEmbeddings):
        if query.exact_match:
            scores = exact_match_scores(query, document)
        else:
            scores = maxsim(query, document, backend=backend)
        if query.cls is None or document.cls is None:
            return scores
        return scores + all_scores(query.cls, document.cls)
    queries, documents = _vectors(query, document)
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ documents.T


def pair_scores(
    query: Embeddings,
    document: Embeddings,
    owners: Int64[Tensor, " documents"],
) -> Float[Tensor, " documents"]:
    """Score document ``n`` against query ``owners[n]`` only, as distillation and reranking do.

    Owners on the CPU keep the host from waiting for a device.
    """
    if isinstance(query, TokenEmbeddings) and isinstance(document, TokenEmbeddings):
        if query.exact_match:
            scores = exact_match_scores(query, document)
            columns = torch.arange(len(document), device=scores.device)
            scores = scores[upload(owners, scores.device), columns]
        else:
            scores = maxsim_grouped(query, document, owners)
        if query.cls is None or document.cls is None:
            return scores
        return scores + pair_scores(query.cls, document.cls, owners)
    queries, documents = _vectors(query, document)
    with torch.autocast(queries.device.type, enabled=False):
        return (queries[upload(owners, queries.device)] * documents).sum(1)


def exact_match_scores(
    query: TokenEmbeddings, document: TokenEmbeddings
) -> Float[Tensor, "queries documents"]:
    r"""Score by equal words only: a MaxSim whose similarities of different ids are 0.

    $$s_{qn} = \sum_i \max_j [w_i = w_{nj}]\, \langle q_i, d_{nj} \rangle$$

    A query word that a document lacks adds 0, and a negative similarity loses to the document's other
    words, which have 0. Ids are distinct within a text, so each pair has one match at most: matches are
    joined by sorted ids, and no similarity of different words is computed.

    Source: Hofstätter et al. (2022), https://arxiv.org/abs/2203.13088 (Uni-ColBERTer).
    """
    assert query.ids is not None
    assert document.ids is not None
    ordered, order = document.ids.sort()
    first = torch.searchsorted(ordered, query.ids)
    counts = torch.searchsorted(ordered, query.ids, right=True) - first
    matched_query = torch.arange(len(query.ids), device=counts.device).repeat_interleave(counts)
    within = torch.arange(len(matched_query), device=counts.device)
    within = within - (counts.cumsum(0) - counts)[matched_query]
    matched_document = order[first[matched_query] + within]
    owner = text_of_token(document.lengths, len(document.tokens))[matched_document]
    with torch.autocast(query.tokens.device.type, enabled=False):
        queries, documents = _vectors(query.tokens, document.tokens)
        similarity = (queries[matched_query] * documents[matched_document]).sum(1)
        alone = document.lengths[owner] == 1
        similarity = torch.where(alone, similarity, similarity.clamp_min(0))
        scores = similarity.new_zeros(len(query) * len(document))
        place = (
            text_of_token(query.lengths, len(query.tokens))[matched_query] * len(document) + owner
        )
        return scores.index_add(0, place, similarity).view(len(query), len(document))


def text_of_token(
    lengths: Int64[Tensor, " texts"], total: int | None = None
) -> Int64[Tensor, " tokens"]:
    """Return which text each token belongs to; without ``total``, their number, a device has to be asked."""
    every = torch.arange(len(lengths), device=lengths.device)
    return every.repeat_interleave(lengths, output_size=total)


def take(embeddings: Embeddings, rows: Int64[Tensor, " chosen"]) -> Embeddings:
    """Return the embeddings of the texts at ``rows``, in that order; rows on the CPU make nobody wait."""
    if isinstance(embeddings, TokenEmbeddings):
        return embeddings.select(rows)
    return embeddings[upload(rows, embeddings.device)]


def first_columns(embeddings: Embeddings, dim: int, *, normalize: bool) -> Embeddings:
    """Return the first ``dim`` dimensions of each vector, of length 1 again if asked; whole ones stay as they are."""
    values = _values(embeddings)
    if dim != values.shape[1]:
        values = F.normalize(values[:, :dim], dim=1) if normalize else values[:, :dim]
    if isinstance(embeddings, Tensor):
        return values
    return replace(embeddings, tokens=values)


def widen(embeddings: Embeddings) -> Embeddings:
    """Return embeddings in float32 at least."""
    if isinstance(embeddings, TokenEmbeddings):
        return _cast(embeddings, torch.promote_types(embeddings.tokens.dtype, torch.float32))
    return _cast(embeddings, torch.promote_types(embeddings.dtype, torch.float32))


def as_computed(embeddings: Kind) -> Kind:
    """Round embeddings once to the type in which the network ran, where the device multiplies in that type.

    They were pooled and normalised in float32. The network's own layers have cost the states as much and
    more; scores and gradients are added up in float32 all the same.
    """
    if _values(embeddings).device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return embeddings
    return _cast(embeddings, torch.get_autocast_dtype("cuda"))


def _values(embeddings: Embeddings) -> Tensor:
    return embeddings.tokens if isinstance(embeddings, TokenEmbeddings) else embeddings


def _cast(embeddings: Kind, dtype: torch.dtype) -> Kind:
    if isinstance(embeddings, Tensor):
        return embeddings.to(dtype)
    cls = embeddings.cls if embeddings.cls is None else embeddings.cls.to(dtype)
    return replace(embeddings, tokens=embeddings.tokens.to(dtype), cls=cls)


def single_vectors(
    query: Embeddings,
    document: Embeddings,
    place: str = "objective",
    cure: str = "Set model.kind: dense",
) -> tuple[Float[Tensor, "queries dim"], Float[Tensor, "documents dim"]]:
    """Return embeddings of one vector per text as they are.

    Raises:
        UserError: If texts have several.
    """
    if isinstance(query, TokenEmbeddings) or isinstance(document, TokenEmbeddings):
        raise UserError(place, "compares one vector per text", cure=cure)
    return query, document


def _vectors(query: Embeddings, document: Embeddings) -> tuple[Tensor, Tensor]:
    if isinstance(query, TokenEmbeddings) or isinstance(document, TokenEmbeddings):
        raise UserError(
            "similarity",
            "needs embeddings of one kind on both sides",
            cure="Encode queries and documents with the same model",
        )
    half = (torch.bfloat16, torch.float16)
    return tuple(x.float() if x.dtype in half else x for x in (query, document))  # type: ignore[return-value]
