"""Late-interaction scores of rectangles with masks, whose holes the package's functions never see."""

import torch

from embedtrain.ops.maxsim.reference import xtr_scores_reference
from embedtrain.ops.maxsim.scores import maxsim, maxsim_grouped, xtr_scores
from embedtrain.types import TokenEmbeddings


def pack(tokens, mask):
    """Lay the tokens that the mask keeps end to end; groups become one long list of texts."""
    return TokenEmbeddings(tokens[mask], mask.sum(-1).flatten())


def padded_maxsim(query, document, query_mask, document_mask, backend="auto"):
    return maxsim(pack(query, query_mask), pack(document, document_mask), backend=backend)


def padded_grouped(query, document, query_mask, document_mask, backend="auto"):
    """Score each query with its own group; the reference picks it out of all pairs."""
    texts = pack(query, query_mask), pack(document, document_mask)
    queries, group = document.shape[:2]
    owners = torch.arange(queries, device=query.device).repeat_interleave(group)
    if backend == "reference":
        columns = torch.arange(len(owners), device=query.device)
        scores = maxsim(*texts, backend=backend)[owners, columns]
    else:
        scores = maxsim_grouped(*texts, owners)
    return scores.view(queries, group)


def padded_xtr(query, document, query_mask, document_mask, top_k, backend="auto"):
    if backend == "reference":
        return xtr_scores_reference(query, document, query_mask, document_mask, top_k)
    return xtr_scores(pack(query, query_mask), pack(document, document_mask), top_k)
