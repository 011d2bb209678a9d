"""Late-interaction scores (MaxSim, ColBERT; XTR): each query token finds its best document token.

``s(q, d) = sum over tokens i of q of max over tokens j of d of <q_i, d_j>``

Every function exists for rectangles with masks (holes allowed) and, as ``*_packed``, for tokens that lie
end to end, which is how the package carries texts. They agree on:

- Products are accumulated in float32 (float64 for float64 inputs), and so are the scores, also under
  autocast.
- A masked document token cannot win: it is left out, not multiplied by 0 (0 would beat a negative
  similarity). A masked query token adds nothing.
- Ties go to the first document token, and only that token gets the gradient.
- A document without tokens scores the dtype's minimum against every query, without a gradient, so that it
  ranks last. A query without tokens scores 0 against all others.

Source: Khattab and Zaharia (2020), https://arxiv.org/abs/2004.12832.
"""

from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.backend import Backend, load_fused, no_fused_kernel
from embedtrain.ops.maxsim.pairs import paired_maxsim
from embedtrain.ops.maxsim.reference import (
    maxsim_grouped_reference,
    maxsim_reference,
    rectangle,
    xtr_scores_reference,
)
from embedtrain.ops.maxsim.token_maximum import segment_sums, token_maximum
from embedtrain.types import TokenEmbeddings


def maxsim(
    query: Float[Tensor, "queries query_tokens dim"],
    document: Float[Tensor, "documents document_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"],
    document_mask: Bool[Tensor, "documents document_tokens"],
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "queries documents"]:
    r"""Score every query against every document.

    $$s_{qn} = \sum_{i: m_{qi}} \max_{j: m_{nj}} \langle q_i, d_{nj} \rangle$$

    ``chunked`` runs one GEMM over tiles and never stores the similarities; its backward pass gathers the
    winners (no dense grid, no atomics, always the same bits). ``auto`` is ``chunked``; ``fused`` needs CUDA.
    Also called sum-of-max and late interaction.
    """
    if backend == "reference":
        with torch.autocast(query.device.type, enabled=False):
            return maxsim_reference(query, document, query_mask, document_mask)
    return maxsim_packed(pack(query, query_mask), pack(document, document_mask), backend=backend)


def maxsim_packed(
    query: TokenEmbeddings, document: TokenEmbeddings, *, backend: Backend = "auto"
) -> Float[Tensor, "queries documents"]:
    """Score every query against every document, :func:`maxsim` of tokens that lie end to end."""
    with torch.autocast(query.tokens.device.type, enabled=False):
        if backend == "reference":
            (padded, mask), (documents, document_mask) = rectangle(query), rectangle(document)
            return maxsim_reference(padded, documents, mask, document_mask)
        filled = document.lengths > 0
        document = TokenEmbeddings(document.tokens, document.lengths[filled])
        if backend == "fused":
            scores: Tensor = _kernels(query, document).maxsim_packed(query, document)
        else:
            values, _ = token_maximum(query.tokens, document.tokens, document.lengths)
            scores = segment_sums(values, query.lengths)
        return _with_empty_last(scores, filled)


def maxsim_grouped(
    query: Float[Tensor, "queries query_tokens dim"],
    document: Float[Tensor, "queries group document_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"],
    document_mask: Bool[Tensor, "queries group document_tokens"],
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "queries group"]:
    """Score every query against its own group of documents only, as distillation and reranking do."""
    if backend == "reference":
        with torch.autocast(query.device.type, enabled=False):
            return maxsim_grouped_reference(query, document, query_mask, document_mask)
    documents = pack(document.flatten(0, 1), document_mask.flatten(0, 1))
    queries, group = document.shape[:2]
    owners = torch.arange(queries, device=query.device).repeat_interleave(group)
    scores = maxsim_grouped_packed(pack(query, query_mask), documents, owners, backend=backend)
    return scores.view(queries, group)


def maxsim_grouped_packed(
    query: TokenEmbeddings,
    document: TokenEmbeddings,
    owners: Int64[Tensor, " documents"],
    *,
    backend: Backend = "auto",
) -> Float[Tensor, " documents"]:
    """Score document ``n`` against query ``owners[n]``; groups may be of any size and in any order."""
    with torch.autocast(query.tokens.device.type, enabled=False):
        if backend == "reference":
            (padded, mask), (documents, document_mask) = rectangle(query), rectangle(document)
            return maxsim_grouped_reference(
                padded[owners], documents[:, None], mask[owners], document_mask[:, None]
            ).squeeze(1)
        filled = document.lengths > 0
        document = TokenEmbeddings(document.tokens, document.lengths[filled])
        pairs = (query, document, owners[filled])
        if backend == "fused":
            scores: Tensor = _kernels(query, document).maxsim_grouped_packed(*pairs)
        else:
            scores = paired_maxsim(*pairs)
        return _with_empty_last(scores, filled)


def pack(
    tokens: Float[Tensor, "texts tokens dim"], mask: Bool[Tensor, "texts tokens"]
) -> TokenEmbeddings:
    """Lay the tokens that the mask keeps end to end, and count them for each text."""
    kept = tokens.flatten(0, 1) if bool(mask.all()) else tokens[mask]
    return TokenEmbeddings(kept, mask.sum(1))


def _with_empty_last(scores: Tensor, filled: Tensor) -> Tensor:
    """Put the scores of documents with tokens into the columns ``filled`` and the minimum elsewhere."""
    if bool(filled.all()):
        return scores
    everything = scores.new_full((*scores.shape[:-1], len(filled)), torch.finfo(scores.dtype).min)
    return everything.index_copy(-1, filled.nonzero().squeeze(1), scores)


def _kernels(query: TokenEmbeddings, document: TokenEmbeddings) -> ModuleType:
    """The Triton kernels, if they can run on these tokens."""
    kernels = load_fused("maxsim")
    if reason := kernels.unsupported(query.tokens, document.tokens):
        raise UserError(
            "maxsim(backend='fused')", "cannot run here", got=reason, cure="Use backend='chunked'"
        )
    return kernels


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
    packed = pack(query, query_mask), pack(document, document_mask)
    return xtr_scores_packed(*packed, top_k, backend=backend)


def xtr_scores_packed(
    query: TokenEmbeddings, document: TokenEmbeddings, top_k: int, *, backend: Backend = "auto"
) -> Float[Tensor, "queries documents"]:
    """Compute :func:`xtr_scores` of tokens that lie end to end."""
    _check_top_k(top_k)
    if backend == "fused":
        raise no_fused_kernel("xtr_scores")
    with torch.autocast(query.tokens.device.type, enabled=False):
        if backend == "reference":
            (padded, mask), (documents, document_mask) = rectangle(query), rectangle(document)
            return xtr_scores_reference(padded, documents, mask, document_mask, top_k)
        filled = document.lengths > 0
        lengths = document.lengths[filled]
        best, threshold = token_maximum(query.tokens, document.tokens, lengths, top_k)
        retrieved = best >= threshold[:, None]
        summed = segment_sums(best.where(retrieved, 0), query.lengths)
        counted = segment_sums(retrieved.to(best.dtype), query.lengths)
        scores = summed / counted.clamp(min=1)
        everything = scores.new_zeros(len(query), len(filled))
        return everything.index_copy(1, filled.nonzero().squeeze(1), scores)


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise UserError("xtr_scores(top_k)", "must be at least 1", got=top_k, cure="Try 256")
