r"""GISTEmbed: InfoNCE without the candidates that a second model finds better than the positive."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Int64
from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.row_blocks import RowLosses, Rows, candidate_masks, mean_over_queries
from embedtrain.ops.similarity import all_scores, pair_scores, take
from embedtrain.types import (
    Embeddings,
    GuideEmbeddings,
    ObjectiveOutput,
    RetrievalOutputs,
    TokenEmbeddings,
)

Direction = Literal["query_to_document", "query_to_query", "document_to_document"]


class GIST(Objective):
    r"""Contrast with the candidates that a guide does not take for further positives.

    $$\mathcal{L} = -\frac{1}{B} \sum_i \log \frac{e^{s(q_i,p_i)/\tau}}{e^{s(q_i,p_i)/\tau} + \sum_{c \in N_i} e^{s_c/\tau}}, \quad
    N_i = \{c : g_c \le g(q_i,p_i) - m\}$$

    Candidates are the scores of query i with all documents, with all other queries, and of its first positive
    with all documents, each left out where the guide's score g of the very same pair exceeds the threshold. The
    positive stays whatever the guide says. Known positives, copies of the query and, among documents, the
    query's own are left out by their ids, so that a duplicate costs nothing whatever the guide's rounding.

    The recipe's ``guide:`` names the model; it should be better than the student. Late interaction compares
    queries with documents only.

    Source: Solatorio (2024), https://arxiv.org/abs/2402.16829.
    """

    name: Literal["gist"] = "gist"
    uses_guide: ClassVar[bool] = True
    temperature: PositiveFloat = 0.05
    """Divides the scores. A temperature that the model learns takes its place."""
    directions: tuple[Direction, ...] = (
        "query_to_document",
        "query_to_query",
        "document_to_document",
    )
    """What a query is contrasted with; must hold ``query_to_document``."""
    margin: float = 0.0
    """m, in units of the guide's similarity; above 0 leaves out more."""
    margin_kind: Literal["absolute", "relative"] = "absolute"
    """``relative`` multiplies the margin by the size of the guide's score of the positive."""

    @property
    def needs_all_queries(self) -> bool:
        """Queries may be candidates."""
        return "query_to_query" in self.directions

    @property
    def reads_scores(self) -> bool:
        """Only which documents are positives counts."""
        return False

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        guide = outputs.guide
        if guide is None:
            raise UserError("objective", "gist needs a guide", cure="Add guide: {model: ...}")
        if isinstance(outputs.query, TokenEmbeddings) and len(self.directions) > 1:
            raise UserError(
                "objective.directions", "compare texts of one side, which late interaction does not",
                got=self.directions, cure="Use [query_to_document]",
            )  # fmt: skip
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        first = outputs.relevance.positives[:, 0]
        own = torch.arange(len(first), device=first.device)
        threshold = pair_scores(guide.query, guide.document[first], own)
        slack = threshold.abs() if self.margin_kind == "relative" else 1.0
        threshold = threshold - self.margin * slack

        def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
            anchors = take(document, first[rows])
            places = torch.arange(len(rows), device=rows.device)
            positive = pair_scores(query, anchors, places) / temperature
            terms = [positive[:, None]]
            for direction in self.directions:
                scores, suspicion, allowed = _compare(
                    direction, outputs, guide, query, anchors, document, rows
                )
                kept = allowed & (suspicion <= threshold[rows, None])
                terms.append(only_where(scores / temperature, kept))
            return torch.cat(terms, 1).logsumexp(1) - positive

        return ObjectiveOutput(
            mean_over_queries(outputs, loss), {"guided_ratio": _guided(outputs, guide, threshold)}
        )


def _compare(
    direction: Direction,
    outputs: RetrievalOutputs,
    guide: GuideEmbeddings,
    query: Embeddings,
    anchors: Embeddings,
    document: Embeddings,
    rows: Int64[Tensor, " chosen"],
) -> tuple[Tensor, Tensor, Bool[Tensor, "chosen candidates"]]:
    """Return the student's scores, the guide's, and which ids may be negatives, in one direction."""
    relevance, everyone = outputs.relevance, outputs.all_queries
    if direction == "query_to_query":
        others = outputs.query if everyone is None else everyone.embeddings
        ids = relevance.query_ids if everyone is None else everyone.ids
        allowed = relevance.query_ids[rows, None] != ids
        return all_scores(query, others), guide.query[rows] @ guide.all_query.T, allowed
    _, negative = candidate_masks(outputs, rows)
    if direction == "query_to_document":
        return all_scores(query, document), guide.query[rows] @ guide.document.T, negative
    allowed = negative & (relevance.owners != relevance.own_rows[rows, None])
    found = guide.document[relevance.positives[rows, 0]] @ guide.document.T
    return all_scores(anchors, document), found, allowed


@torch.no_grad()
def _guided(
    outputs: RetrievalOutputs, guide: GuideEmbeddings, threshold: Tensor, num_queries: int = 256
) -> Tensor:
    """Return the share of negatives that the guide left out, of the first queries."""
    rows = torch.arange(min(num_queries, len(threshold)), device=threshold.device)
    _, negative = candidate_masks(outputs, rows)
    left_out = (guide.query[rows] @ guide.document.T > threshold[rows, None]) & negative
    return left_out.sum() / negative.sum().clamp_min(1)
