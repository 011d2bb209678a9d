r"""PAIR: the positive shall be nearer to its query than to any negative, besides the usual order."""

from typing import Literal

import torch
from pydantic import Field, PositiveFloat

from embedtrain.objectives.base import Objective
from embedtrain.ops.backend import Backend
from embedtrain.ops.contrast import contrast
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.infonce.problem import InfoNCEOptions
from embedtrain.ops.row_blocks import RowLosses, Rows, candidate_masks, mean_over_queries
from embedtrain.ops.similarity import all_scores, pair_scores, take
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs


class Pair(Objective):
    r"""Mix a query-centric and a document-centric contrast.

    $$\mathcal{L} = \frac{1}{B} \sum_i (1-\alpha) L_{Q,i} + \alpha L_{P,i}, \quad
    L_{P,i} = -\log \frac{e^{s(q_i,p_i)/\tau}}{e^{s(q_i,p_i)/\tau} + \sum_{n \in N_i} e^{s(p_i,n)/\tau}}$$

    $L_Q$ is InfoNCE. The numerator of $L_P$ is still the score of query and positive (the first one, where there
    are several): only the negatives are compared with the positive. Its gradient therefore reaches the query
    through the positive pair alone. $N_i$ are the candidates that InfoNCE takes for negatives.
    For pre-training; fine-tune with $\alpha = 0$, which is what search does.

    Source: Ren et al. (2021), https://arxiv.org/abs/2108.06027.
    """

    name: Literal["pair"] = "pair"
    alpha: float = Field(default=0.1, ge=0, le=1)
    """Share of the document-centric part."""
    temperature: PositiveFloat = 0.05
    """Divides the scores: the paper's dot products take 1. A learned temperature takes its place."""
    negatives: Literal["all", "own"] = "all"
    """Every candidate of the batch, or only the query's own negatives."""
    backend: Backend = "auto"
    """How InfoNCE is computed, never what."""

    @property
    def reads_scores(self) -> bool:
        """Only which documents are positives counts."""
        return False

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        options = InfoNCEOptions(negatives=self.negatives)
        query_centric = contrast(outputs, temperature, options, self.backend)
        first = outputs.relevance.positives[:, 0]

        def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
            anchors = take(document, first[rows])
            own = torch.arange(len(rows), device=rows.device)
            positive = pair_scores(query, anchors, own) / temperature
            _, negative = candidate_masks(outputs, rows)
            if self.negatives == "own":
                relevance = outputs.relevance
                negative &= relevance.owners == relevance.own_rows[rows, None]
            scores = only_where(all_scores(anchors, document) / temperature, negative)
            return torch.cat([positive[:, None], scores], 1).logsumexp(1) - positive

        document_centric = mean_over_queries(outputs, loss)
        total = (1 - self.alpha) * query_centric.loss + self.alpha * document_centric
        metrics = {
            "accuracy": query_centric.accuracy,
            "query_centric": query_centric.loss.detach(),
            "document_centric": document_centric.detach(),
        }
        return ObjectiveOutput(total, metrics)
