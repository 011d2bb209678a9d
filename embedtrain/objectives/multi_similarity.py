r"""Multi-similarity: texts of one class come together, those of others apart, the hard ones first."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.row_blocks import RowLosses, Rows, mean_over_queries
from embedtrain.ops.scored_pairs import labels_of
from embedtrain.ops.similarity import all_scores
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs


class MultiSimilarity(Objective):
    r"""Weigh positives and negatives of a query by their own and by relative similarity.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{\alpha} \log\Big(1 + \sum_{p} e^{-\alpha (s_{ip} - \lambda)}\Big)
    + \frac{1}{\beta} \log\Big(1 + \sum_{n} e^{\beta (s_{in} - \lambda)}\Big)$$

    The class of a document is its number (``columns: {label: ...}``), that of a query the one of its first
    positive; candidates are the documents of all ranks, without those that have the query's own text. Only
    pairs that are hard take part: negatives above the lowest positive minus $\epsilon$, positives below the
    highest negative plus $\epsilon$; no gradient flows through that choice.

    Source: Wang et al. (2019), https://arxiv.org/abs/1904.06627.
    """

    name: Literal["multi_similarity"] = "multi_similarity"
    alpha: PositiveFloat = 2.0
    """Sharpness of the positives."""
    beta: PositiveFloat = 50.0
    """Sharpness of the negatives."""
    threshold: float = 0.5
    """Lambda, the similarity that divides them."""
    margin: PositiveFloat = 0.1
    """Epsilon."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        relevance = outputs.relevance
        labels = labels_of(outputs)
        own = labels[relevance.positives[:, 0]]

        def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
            scores = all_scores(query, document)
            other_text = relevance.document_ids != relevance.query_ids[rows][:, None]
            alike = labels == own[rows][:, None]
            return self._of_scores(scores, alike & other_text, ~alike)

        return ObjectiveOutput(mean_over_queries(outputs, loss), {})

    def _of_scores(
        self,
        scores: Float[Tensor, "queries documents"],
        positive: Bool[Tensor, "queries documents"],
        negative: Bool[Tensor, "queries documents"],
    ) -> Float[Tensor, " queries"]:
        fixed = scores.detach()
        lowest = fixed.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
        highest = fixed.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
        hard_negative = negative & (fixed > lowest - self.margin)
        hard_positive = positive & (fixed < highest + self.margin)
        pulled = _log_one_plus_sum(-self.alpha * (scores - self.threshold), hard_positive)
        pushed = _log_one_plus_sum(self.beta * (scores - self.threshold), hard_negative)
        return pulled / self.alpha + pushed / self.beta


def _log_one_plus_sum(
    exponents: Float[Tensor, "queries documents"], mask: Bool[Tensor, "queries documents"]
) -> Float[Tensor, " queries"]:
    return torch.logsumexp(F.pad(only_where(exponents, mask), (1, 0)), 1)
