"""Losses that need every score of a query at once: a few queries at a time, forgotten in between."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from embedtrain.ops.similarity import take
from embedtrain.packed import upload
from embedtrain.types import Embeddings, RetrievalOutputs

SCORES_AT_ONCE = 2**22
"""Scores held for one block of queries (16 MiB in float32)."""


Rows = Int64[Tensor, " chosen"]
RowLosses = Float[Tensor, " chosen"]
RowLoss = Callable[[Embeddings, Embeddings, Rows], RowLosses]
"""Gives the loss of each of some queries, from their embeddings, all documents, and the queries' rows."""


def mean_over_queries(
    outputs: RetrievalOutputs, loss: RowLoss, *, scores_at_once: int = SCORES_AT_ONCE
) -> Float[Tensor, ""]:
    """Average a loss over queries, holding the scores of one block of queries at a time."""
    return torch.cat(in_blocks(outputs, loss, scores_at_once)).sum() / len(outputs.query)


def in_blocks(
    outputs: RetrievalOutputs,
    work: Callable[[Embeddings, Embeddings, Rows], Tensor],
    scores_at_once: int = SCORES_AT_ONCE,
) -> list[Tensor]:
    """Do some work for one block of queries at a time; return what each gave.

    The backward pass computes each block again, so that memory does not grow with the number of queries.
    """
    num_queries = len(outputs.query)
    size = max(1, scores_at_once // max(1, len(outputs.document)))
    done = []
    every = torch.arange(num_queries)
    there = upload(every, outputs.relevance.owners.device)
    for start in range(0, num_queries, size):
        block = take(outputs.query, every[start : start + size])
        rows = there[start : start + size]
        done.append(checkpoint(work, block, outputs.document, rows, use_reentrant=False))
    return done


def candidate_masks(
    outputs: RetrievalOutputs, rows: Rows
) -> tuple[Bool[Tensor, "chosen documents"], Bool[Tensor, "chosen documents"]]:
    """Return which candidates are positives and which are negatives of the queries at ``rows``.

    Neither are documents with the id of a positive, or of a known positive, as in InfoNCE.
    """
    relevance = outputs.relevance
    columns = relevance.positives[rows]
    ids = relevance.document_ids
    positive = torch.zeros(len(rows), len(ids) + 1, dtype=torch.bool, device=ids.device)
    positive = positive.scatter(1, columns.masked_fill(columns < 0, len(ids)), True)[:, :-1]
    negative = ~positive
    for column in relevance.answers[rows].unbind(1):
        negative &= ids != column[:, None]
    return positive, negative
