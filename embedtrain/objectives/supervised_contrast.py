r"""Supervised contrast: texts that mean the same are each other's positives, however many there are."""

from typing import Literal

import torch
from jaxtyping import Bool, Int64
from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.row_blocks import RowLosses, Rows, mean_over_queries
from embedtrain.ops.scored_pairs import labels_of
from embedtrain.ops.similarity import all_scores
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs

SAMPLE = 256
"""Queries of which the log says how many are alone, without a positive in the batch."""


class SupervisedContrast(Objective):
    r"""Contrast each query with all other texts, averaged over its positives (SupCon).

    $$\mathcal{L} = -\frac{1}{B} \sum_{i : P(i) \ne \emptyset} \frac{1}{|P(i)|} \sum_{p \in P(i)}
    \log \frac{e^{s_{ip}/\tau}}{\sum_{a \in A(i)} e^{s_{ia}/\tau}}$$

    A(i) are the documents of all ranks without those that have the query's own text; P(i) those of them that
    any row calls positive for the query, or that share its label. A query without positives costs nothing; the
    mean still runs over all queries, so that ranks agree with one process.

    Source: Khosla et al. (2020), https://arxiv.org/abs/2004.11362; for spans of texts Chen et al. (2023),
    https://arxiv.org/abs/2311.04335.
    """

    name: Literal["supervised_contrast"] = "supervised_contrast"
    temperature: PositiveFloat = 0.1
    """tau, divides the similarities; 0.1 is what sub-sentence encoders were trained with. A temperature that the
    model learns takes its place."""
    alike: Literal["rows", "labels"] = "rows"
    """What makes a document a positive: a row that says so, or the query's label (``columns: {label: ...}``), the
    label of a query being that of its first positive."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        relevance = outputs.relevance
        labels = labels_of(outputs) if self.alike == "labels" else None
        temperature = self.temperature if outputs.temperature is None else outputs.temperature

        def masks(
            rows: Int64[Tensor, " chosen"],
        ) -> tuple[Bool[Tensor, "chosen documents"], Bool[Tensor, "chosen documents"]]:
            candidate = relevance.document_ids != relevance.query_ids[rows][:, None]
            if labels is not None:
                own = labels[relevance.positives[rows, 0]]
                return candidate, candidate & (labels == own[:, None])
            positive = torch.zeros_like(candidate)
            for column in relevance.answers[rows].unbind(1):
                positive |= relevance.document_ids == column[:, None]
            return candidate, candidate & positive

        def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
            candidate, positive = masks(rows)
            logits = all_scores(query, document) / temperature
            total = torch.logsumexp(only_where(logits, candidate), 1)
            count = positive.sum(1)
            mean = logits.masked_fill(~positive, 0).sum(1) / count.clamp_min(1)
            return (total - mean).masked_fill(count == 0, 0)

        some = torch.arange(min(len(outputs.query), SAMPLE), device=relevance.owners.device)
        alone = (~masks(some)[1].any(1)).float().mean()
        return ObjectiveOutput(mean_over_queries(outputs, loss), {"alone_ratio": alone})
