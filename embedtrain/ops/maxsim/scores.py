"""Late-interaction scores (MaxSim, ColBERT; XTR): each query token finds its best document token.

``s(q, d) = sum over tokens i of q of max over tokens j of d of <q_i, d_j>``

Texts lie end to end, which is how the package carries them. The functions agree on:

- Products are accumulated in float32 (float64 for float64 inputs), and so are the scores, also under
  autocast.
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
from embedtrain.ops.backend import Backend, load_fused
from embedtrain.ops.choices import Choice, announce, choose, may_choose
from embedtrain.ops.maxsim.pairs import paired_maxsim
from embedtrain.ops.maxsim.reference import maxsim_reference, rectangle
from embedtrain.ops.maxsim.token_maximum import segment_sums, token_maximum
from embedtrain.packed import upload
from embedtrain.types import TokenEmbeddings


def maxsim(
    query: TokenEmbeddings, document: TokenEmbeddings, *, backend: Backend = "auto"
) -> Float[Tensor, "queries documents"]:
    r"""Score every query against every document.

    $$s_{qn} = \sum_{i \in q} \max_{j \in n} \langle q_i, d_{nj} \rangle$$

    ``chunked`` runs one GEMM over tiles and never stores the similarities; its backward pass gathers the
    winners (no dense grid, no atomics, always the same bits). ``fused`` needs CUDA. ``auto`` is ``chunked`` on a
    CPU and goes by :mod:`embedtrain.ops.choices` on CUDA.
    Also called sum-of-max and late interaction.
    """
    with torch.autocast(query.tokens.device.type, enabled=False):
        if backend == "reference":
            (padded, mask), (documents, document_mask) = rectangle(query), rectangle(document)
            return maxsim_reference(padded, documents, mask, document_mask)
        document, filled = _without_empty(document)
        if backend == "auto":
            backend = _choose(query, document)
        if backend == "fused":
            scores: Tensor = _kernels(query, document).maxsim_fused(query, document)
        else:
            values, _ = token_maximum(query.tokens, document.tokens, document.sizes)
            scores = segment_sums(values, query.sizes)
        return _with_empty(scores, filled, torch.finfo(scores.dtype).min)


def maxsim_grouped(
    query: TokenEmbeddings, document: TokenEmbeddings, owners: Int64[Tensor, " documents"]
) -> Float[Tensor, " documents"]:
    """Score document ``n`` against query ``owners[n]``, as distillation and reranking do.

    Groups may be of any size and in any order. Owners on the CPU keep the host from waiting for a device.
    """
    with torch.autocast(query.tokens.device.type, enabled=False):
        document, filled = _without_empty(document)
        scores = paired_maxsim(query, document, owners.cpu()[filled])
        return _with_empty(scores, filled, torch.finfo(scores.dtype).min)


def _without_empty(
    document: TokenEmbeddings,
) -> tuple[TokenEmbeddings, Bool[Tensor, " documents"]]:
    """Return the tokens of the documents that have any, and which these are, on the CPU."""
    filled = document.sizes > 0
    sizes = document.sizes[filled]
    there = upload(sizes, document.lengths.device)
    return TokenEmbeddings(document.tokens, there, host_lengths=sizes), filled


def _with_empty(scores: Tensor, filled: Tensor, value: float) -> Tensor:
    """Put the scores of documents with tokens into the columns ``filled`` and ``value`` elsewhere."""
    if bool(filled.all()):
        return scores
    everything = scores.new_full((*scores.shape[:-1], len(filled)), value)
    places = upload(filled.nonzero().squeeze(1), scores.device)
    return everything.index_copy(-1, places, scores)


def _choose(query: TokenEmbeddings, document: TokenEmbeddings) -> Backend:
    """Return what ``auto`` takes: fused where the table prefers it and the kernels support the tokens."""
    tokens = query.tokens
    if not may_choose(tokens.device):
        return "chunked"
    size = tokens.shape[1], len(query) * len(document)
    choice = choose("maxsim", tokens.device, tokens.dtype, *size)
    if choice.backend == "fused":
        obstacle = load_fused("maxsim").unsupported(tokens, document.tokens)
        choice = Choice("chunked", f"the kernels do not support {obstacle}") if obstacle else choice
    announce("maxsim", choice)
    return choice.backend


def _kernels(query: TokenEmbeddings, document: TokenEmbeddings) -> ModuleType:
    """The Triton kernels, if they can run on these tokens."""
    kernels = load_fused("maxsim")
    if reason := kernels.unsupported(query.tokens, document.tokens):
        raise UserError(
            "maxsim(backend='fused')", "cannot run here", got=reason, cure="Use backend='chunked'"
        )
    return kernels


def xtr_scores(
    query: TokenEmbeddings, document: TokenEmbeddings, top_k: int
) -> Float[Tensor, "queries documents"]:
    r"""Score every query against every document by the tokens that are retrieved within the batch.

    $$s_{qn} = \frac{1}{Z_{qn}} \sum_i \max_j A_{i,nj} \langle q_i, d_{nj} \rangle, \quad
    Z_{qn} = \max(1, |\{i : \exists j\, A_{i,nj} = 1\}|)$$

    ``A = 1`` where the similarity is at least the ``top_k``-th largest of the query token over all document
    tokens of the batch (ties at that place are all retrieved, so that equal documents score the same). A
    query token that retrieves nothing from a document adds 0, so a document of which nothing is retrieved,
    or which is empty, scores 0. With ``top_k`` at least the number of document tokens this is MaxSim
    divided by the number of query tokens. Accumulation and ties of the maximum: as in
    :mod:`embedtrain.ops.maxsim.scores`. Keep ``top_k`` well below the number of document tokens in the batch
    (a tenth at most), or the scores say no more than MaxSim.

    Source: Lee et al. (2023), https://arxiv.org/abs/2304.01982.
    """
    with torch.autocast(query.tokens.device.type, enabled=False):
        document, filled = _without_empty(document)
        best, threshold = token_maximum(query.tokens, document.tokens, document.sizes, top_k)
        retrieved = best >= threshold[:, None]
        summed = segment_sums(best.where(retrieved, 0), query.sizes)
        counted = segment_sums(retrieved.to(best.dtype), query.sizes)
        return _with_empty(summed / counted.clamp(min=1), filled, 0.0)
