"""XTR scores: late interaction that only counts the tokens which a token-level search would retrieve."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.backend import Backend, no_fused_kernel
from embedtrain.ops.maxsim.reference import rectangle, xtr_scores_reference
from embedtrain.ops.maxsim.scores import pack
from embedtrain.ops.maxsim.token_maximum import segment_sums, token_maximum


def xtr_scores(
    query: Float[Tensor, "queries query_tokens dim"],
    document: Float[Tensor, "documents document_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"],
    document_mask: Bool[Tensor, "documents document_tokens"],
    top_k: int,
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "queries documents"]:
    r"""Score every query against every document by the tokens that are retrieved within the batch.

    $$s_{qn} = \frac{1}{Z_{qn}} \sum_i \max_j A_{i,nj} \langle q_i, d_{nj} \rangle, \quad
    Z_{qn} = \max(1, |\{i : \exists j\, A_{i,nj} = 1\}|)$$

    ``A = 1`` where the similarity is at least the ``top_k``-th largest of the query token over all document
    tokens of the batch (ties at that place are all retrieved, so that equal documents score the same). A
    query token that retrieves nothing from a document adds 0, so a document of which nothing is retrieved,
    or which is empty, scores 0. With ``top_k`` at least the number of document tokens this is MaxSim
    divided by the number of query tokens. Masks, accumulation and ties of the maximum: as in
    :mod:`embedtrain.ops.maxsim.scores`. Keep ``top_k`` well below the number of document tokens in the batch
    (a tenth at most), or the scores say no more than MaxSim.

    Source: Lee et al. (2023), https://arxiv.org/abs/2304.01982.
    """
    _check_top_k(top_k)
    if backend == "reference":
        with torch.autocast(query.device.type, enabled=False):
            return xtr_scores_reference(query, document, query_mask, document_mask, top_k)
    tokens, lengths = pack(query, query_mask)
    document_tokens, document_lengths = pack(document, document_mask)
    return xtr_scores_packed(
        tokens, lengths, document_tokens, document_lengths, top_k, backend=backend
    )


def xtr_scores_packed(
    query: Float[Tensor, "query_tokens dim"],
    query_lengths: Int64[Tensor, " queries"],
    document: Float[Tensor, "document_tokens dim"],
    document_lengths: Int64[Tensor, " documents"],
    top_k: int,
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "queries documents"]:
    """Compute :func:`xtr_scores` of tokens that lie end to end."""
    _check_top_k(top_k)
    if backend == "fused":
        raise no_fused_kernel("xtr_scores")
    with torch.autocast(query.device.type, enabled=False):
        if backend == "reference":
            padded, mask = rectangle(query, query_lengths)
            documents, document_mask = rectangle(document, document_lengths)
            return xtr_scores_reference(padded, documents, mask, document_mask, top_k)
        filled = document_lengths > 0
        best, threshold = token_maximum(query, document, document_lengths[filled], top_k)
        retrieved = best >= threshold[:, None]
        summed = segment_sums(best.where(retrieved, 0), query_lengths)
        counted = segment_sums(retrieved.to(best.dtype), query_lengths)
        scores = summed / counted.clamp(min=1)
        everything = scores.new_zeros(len(query_lengths), len(filled))
        return everything.index_copy(1, filled.nonzero().squeeze(1), scores)


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise UserError("xtr_scores(top_k)", "must be at least 1", got=top_k, cure="Try 256")
