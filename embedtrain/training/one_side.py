"""Steps whose objective reads the vectors of one side only: the texts of the other are not encoded."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from embedtrain.types import RetrievalBatch, Side


def without_unread(batch: RetrievalBatch, sides: Sequence[Side]) -> RetrievalBatch:
    """Return a batch in which one text stands for all of a side that is not among ``sides``.

    What it means is unchanged but for the vectors of that side, which nobody may read.
    """
    first = torch.zeros(1, dtype=torch.int64)
    if "document" not in sides:
        rows = torch.zeros_like(batch.document_rows)
        return replace(batch, documents=batch.documents.select(first), document_rows=rows)
    if "query" not in sides:
        rows = torch.zeros_like(batch.query_rows)
        return replace(batch, queries=batch.queries.select(first), query_rows=rows)
    return batch
