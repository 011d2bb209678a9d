"""What the log says of the vectors that a sparse model gives the texts of a batch."""

import torch
from torch import Tensor

from embedtrain.ops.word_activity import num_entries
from embedtrain.sparse_vectors import UBIQUITOUS
from embedtrain.types import RetrievalOutputs


@torch.no_grad()
def sparse_figures(outputs: RetrievalOutputs) -> dict[str, Tensor]:
    """Return how many entries texts have, how many have none, and how words are shared among documents.

    ``expected_cost`` is the number of words that a query and a document have in common on average, were they drawn
    independently: what a search pays for each document.
    """
    figures: dict[str, Tensor] = {}
    shares: list[Tensor] = []
    for side, rows in (("query", outputs.query), ("document", outputs.document)):
        assert isinstance(rows, Tensor)
        by_text, by_word = num_entries(rows)
        entries = by_text.float()
        shares.append(by_word.float() / len(rows))
        figures[f"{side}_nnz"] = entries.mean()
        figures[f"{side}_nnz_p95"] = entries.quantile(0.95)
        figures[f"{side}_zero_share"] = (entries == 0).float().mean()
        figures[f"{side}_flops"] = rows.mean(0).square().sum()
    query, document = shares
    return figures | {
        "expected_cost": (query * document).sum(),
        "dead_words": (document == 0).float().mean(),
        "ubiquitous_words": (document > UBIQUITOUS).sum().float(),
        "top_document_share": document.max(),
    }
