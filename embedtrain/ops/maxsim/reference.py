"""Late-interaction scores in plain torch: the definitions that every other backend is tested against.

They hold every token-to-token similarity at once, so use them on small inputs.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedtrain.ops.exponentials import only_where
from embedtrain.ops.maxsim.token_maximum import accumulation_dtype
from embedtrain.types import TokenEmbeddings


def maxsim_reference(
    query: Float[Tensor, "queries query_tokens dim"],
    document: Float[Tensor, "documents document_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"],
    document_mask: Bool[Tensor, "documents document_tokens"],
) -> Float[Tensor, "queries documents"]:
    """Compute :func:`embedtrain.ops.maxsim.scores.maxsim` in plain torch; this defines it."""
    similarity = _similarity("qid,njd->qnij", query, document)
    best = only_where(similarity, document_mask[None, :, None, :]).max(-1).values
    scores = best.where(query_mask[:, None, :], 0).sum(-1)
    return only_where(scores, document_mask.any(1)[None, :])


def xtr_scores_reference(
    query: Float[Tensor, "queries query_tokens dim"],
    document: Float[Tensor, "documents document_tokens dim"],
    query_mask: Bool[Tensor, "queries query_tokens"],
    document_mask: Bool[Tensor, "documents document_tokens"],
    top_k: int,
) -> Float[Tensor, "queries documents"]:
    """Compute :func:`embedtrain.ops.maxsim.scores.xtr_scores` in plain torch; this defines it."""
    similarity = _similarity("qid,njd->qinj", query, document)
    similarity = only_where(similarity, document_mask)
    top_k = max(1, min(top_k, int(document_mask.sum())))
    threshold = similarity.detach().flatten(2).topk(top_k).values.amin(-1)
    best = similarity.max(-1).values
    retrieved = (best >= threshold[..., None]) & document_mask.any(1) & query_mask[..., None]
    return best.where(retrieved, 0).sum(1) / retrieved.sum(1).clamp(min=1)


def rectangle(
    texts: TokenEmbeddings,
) -> tuple[Float[Tensor, "texts longest dim"], Bool[Tensor, "texts longest"]]:
    """Pad texts that lie end to end; the inverse of selecting by the mask."""
    tokens, lengths = texts.tokens, texts.lengths
    longest = max(1, int(lengths.max())) if len(lengths) else 1
    mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
    padded = tokens.new_zeros(*mask.shape, tokens.shape[1])
    return padded.index_put((mask,), tokens), mask


def _similarity(equation: str, query: Tensor, document: Tensor) -> Tensor:
    dtype = accumulation_dtype(query, document)
    return torch.einsum(equation, query.to(dtype), document.to(dtype))
