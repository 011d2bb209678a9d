r"""SetCSE: sentences of one set keep apart from those of other sets, so that sets can be searched with."""

from typing import Literal

import torch
from pydantic import PositiveFloat

from embedtrain.objectives.base import Objective
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.row_blocks import RowLosses, Rows, mean_over_queries
from embedtrain.ops.scored_pairs import labels_of
from embedtrain.ops.similarity import all_scores
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs


class SetContrast(Objective):
    r"""Contrast each sentence with the sentences of other sets only.

    $$\mathcal{L} = -\frac{1}{B} \sum_i \log \frac{e^{s(h_i, h_i^+)/\tau}}{e^{s(h_i, h_i^+)/\tau} +
    \sum_{g \notin S(i)} e^{s(h_i, g)/\tau}}$$

    $h_i^+$ is the sentence again, with other dropout: name its column as query and as positive
    (``columns: {query: text, positive: text, label: label}``). Sentences of its own set are neither positives
    nor negatives; the set is the label. Search with sets afterwards: ``embedtrain search --like --unlike``.

    Source: Liu (2024), https://arxiv.org/abs/2404.17606 (SetCSE).
    """

    name: Literal["set_contrast"] = "set_contrast"
    temperature: PositiveFloat = 0.05
    """tau, divides the similarities."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        labels = labels_of(outputs)
        columns = outputs.relevance.positives[:, 0]
        own = labels[columns]

        def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
            logits = all_scores(query, document) / self.temperature
            positive = logits.gather(1, columns[rows][:, None])
            others = only_where(logits, labels != own[rows][:, None])
            return torch.logsumexp(torch.cat([positive, others], 1), 1) - positive[:, 0]

        return ObjectiveOutput(mean_over_queries(outputs, loss), {})
