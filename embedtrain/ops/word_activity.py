"""How much each word weighs over the texts of a batch: what regularisers of sparse models are made of."""

from jaxtyping import Float
from torch import Tensor

from embedtrain.types import WordActivity


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
    return WordActivity(rows.mean(0), (rows.detach() > 0).to(rows.dtype).mean(0))
