"""How much each word weighs over the texts of a batch: what regularisers of sparse models are made of."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.types import WordActivity

COUNTED = 2**21
"""Values that are counted at once: a sum of yes and no takes 8 bytes for each."""


def num_entries(
    rows: Float[Tensor, "texts dim"],
) -> tuple[Int64[Tensor, " texts"], Int64[Tensor, " dim"]]:
    """Return how many entries above 0 each text has, and how many texts have each word."""
    rows = rows.detach()
    by_word = torch.zeros_like(rows[0], dtype=torch.int64)
    by_text = []
    for block in torch.split(rows, max(1, COUNTED // rows.shape[1])):
        filled = block > 0
        by_text.append(filled.sum(1))
        by_word += filled.sum(0)
    return torch.cat(by_text), by_word


def counted(rows: Float[Tensor, "texts dim"], more_than: int = 0) -> Float[Tensor, "texts dim"]:
    """Return the rows, 0 in place of those that have at most ``more_than`` entries; these get no gradient."""
    if not more_than:
        return rows
    return rows * ((rows > 0).sum(1, keepdim=True) > more_than)


def word_activity(rows: Float[Tensor, "texts dim"], more_than: int = 0) -> WordActivity:
    r"""Return the mean weight of each word, $m_v = \frac{1}{N} \sum_i R_{iv}$, and in which share of texts it has any.

    Texts with at most ``more_than`` entries count as empty ones; N counts them.
    """
    rows = counted(rows, more_than)
    share = num_entries(rows)[1].to(rows.dtype) / len(rows)
    # The gradient of a mean, of mean(), would be as large as the rows.
    return WordActivity(rows.sum(0) / len(rows), share)
