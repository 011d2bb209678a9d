r"""D2LLM's imitation of an LLM that scores pairs: contrast, rank and feature imitation."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from embedtrain.errors import UserError
from embedtrain.interaction_types import JointNetwork
from embedtrain.objectives.base import Objective
from embedtrain.ops.backend import Backend
from embedtrain.ops.contrast import contrast
from embedtrain.ops.groups import Groups, masked_log_softmax, score_groups, teacher_groups
from embedtrain.ops.infonce.problem import InfoNCEOptions
from embedtrain.ops.interaction import InteractionTask, interaction_features
from embedtrain.ops.row_blocks import (
    SCORES_AT_ONCE,
    RowLosses,
    Rows,
    candidate_masks,
    mean_over_queries,
)
from embedtrain.ops.scorers import Scorer
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs, TokenEmbeddings


class D2LLM(Objective):
    r"""Imitate a teacher's judgments of a query's hard negatives, and their order against easy ones.

    With logits $z = s/\tau$ and the teacher's probability $t = \sigma(\text{score})$ of relevance,

    $$\mathcal{L} = \mathcal{L}_\mathrm{InfoNCE} + \alpha \mathcal{L}_H + \beta \mathcal{L}_R + \gamma \mathcal{L}_E + \eta \mathcal{L}_F$$

    - $\mathcal{L}_H$: cross-entropy of the first positive in the softmax of $w z$ over the query's own documents,
      $w = t$ for positives and $1 - t$ for negatives: doubtful negatives count less,
    - $\mathcal{L}_R$: $1 - \mathrm{Pearson}(z, t)$ over the query's own documents,
    - $\mathcal{L}_E$: $\mathrm{mean}_{k,j}\; t_k\, (-\log \sigma(z_k - z_j))$: a query's own negatives k come before those of
      other queries j, the more so the more the teacher likes them (it gives other queries' documents 0),
    - $\mathcal{L}_F$: mean squared difference between the cosine Gram matrices of the query's own documents: that of
      the student's features and that of the states from which the teacher reads its judgments of the pairs, which
      ``embedtrain score --gram`` writes beside the scores. With $\eta = 0$ it is not needed.

    The score s is that of the model's interaction head where it has one (``model.interaction``, with
    ``model.attention_pooling`` the paper's whole scorer; its temperature is 1), and the features are that head's
    last layer; else s is the similarity that search uses, and the features are the documents' embeddings.
    InfoNCE is averaged over queries, not divided by $B^2$. The paper's teacher also judges a query with the documents
    of others, for $\mathcal{L}_E$; which those are is known at each step only.

    Source: Liao et al. (2024), https://arxiv.org/abs/2406.17262.
    """

    name: Literal["d2llm"] = "d2llm"
    uses_interaction: ClassVar[bool] = True
    temperature: PositiveFloat = 0.05
    """Divides the scores. A temperature that the model learns takes its place."""
    hard_weight: NonNegativeFloat = 1.0
    """alpha."""
    rank_weight: NonNegativeFloat = 1.0
    """beta."""
    easy_weight: NonNegativeFloat = 0.01
    """gamma."""
    feature_weight: NonNegativeFloat = 0.0
    """eta, 0.001 in the paper; needs rows of ``embedtrain score --gram`` and one vector per text."""
    task: InteractionTask = "retrieval"
    """Which branch of the interaction head is trained; sources may differ in it (``data.sources: [{objective: ...}]``)."""
    backend: Backend = "auto"
    """How InfoNCE is computed, never what."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        scorer = Scorer(outputs.interaction, self.task)
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        groups = score_groups(outputs, scorer.pairs)
        logits = groups.scores / temperature
        teacher = torch.sigmoid(teacher_groups(outputs, groups)).masked_fill(~groups.mask, 0.0)
        parts = {
            "contrast": contrast(
                outputs, temperature, InfoNCEOptions(), self.backend, self.task
            ).loss,
            "hard": self.hard_weight * _hard(outputs, groups, logits, teacher),
            "rank": self.rank_weight * _rank(groups, logits, teacher),
        }
        if self.easy_weight:
            parts["easy"] = self.easy_weight * _easy(
                outputs, groups, logits, teacher, scorer, temperature
            )
        if self.feature_weight:
            parts["feature"] = self.feature_weight * _feature(outputs, groups, scorer)
        metrics = {name: value.detach() for name, value in parts.items()}
        return ObjectiveOutput(torch.stack(list(parts.values())).sum(), metrics)


def _hard(outputs: RetrievalOutputs, groups: Groups, logits: Tensor, teacher: Tensor) -> Tensor:
    weights = torch.where(groups.positives, teacher, 1 - teacher)
    first = groups.columns == outputs.relevance.positives[:, :1]
    return -(masked_log_softmax(weights * logits, groups.mask) * first).sum(1).mean()


def _rank(groups: Groups, logits: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean of 1 - Pearson; a query whose documents are all alike costs 0."""
    mask = groups.mask.to(logits.dtype)
    count = mask.sum(1, keepdim=True)
    ours, theirs = (
        (values - (values * mask).sum(1, keepdim=True) / count) * mask
        for values in (logits, teacher)
    )
    spread = ours.square().sum(1) * theirs.square().sum(1)
    defined = spread > 0
    # The root is taken of 1 where it is not defined: its gradient at 0 is infinite.
    correlation = (ours * theirs).sum(1) / spread.masked_fill(~defined, 1.0).sqrt()
    return ((1 - correlation) * defined).mean()


def _easy(
    outputs: RetrievalOutputs,
    groups: Groups,
    logits: Tensor,
    teacher: Tensor,
    scorer: Scorer,
    temperature: float | Tensor,
) -> Tensor:
    owners, own_rows = outputs.relevance.owners, outputs.relevance.own_rows

    def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
        _, negative = candidate_masks(outputs, rows)
        easy = negative & (owners != own_rows[rows, None])
        scores = scorer.all(query, document) / temperature
        hard = groups.negatives[rows]
        pairs = F.softplus(scores[:, None] - logits[rows][:, :, None])
        pairs = teacher[rows][:, :, None] * pairs * (hard[:, :, None] & easy[:, None])
        count = hard.sum(1) * easy.sum(1)
        return pairs.sum((1, 2)) / count.clamp_min(1)

    block = max(1, min(SCORES_AT_ONCE // logits.shape[1], scorer.at_once()))
    return mean_over_queries(outputs, loss, scores_at_once=block)


def _feature(outputs: RetrievalOutputs, groups: Groups, scorer: Scorer) -> Tensor:
    gram, document = outputs.relevance.teacher_gram, outputs.document
    if isinstance(document, TokenEmbeddings):
        cure = "Set it to 0, or train model.kind=dense"
        raise UserError("objective.feature_weight", "compares one vector per text", cure=cure)
    if groups.columns.shape[1] == 1:  # a document beside itself
        return document.sum() * 0.0
    if gram is None:
        raise UserError(
            "objective.feature_weight",
            "imitates the features of a teacher's pairs and the rows have none",
            cure="Add them with `embedtrain score LLM --as yes_no --gram`, or set it to 0",
        )
    rows = groups.columns.clamp_min(0)
    both = (groups.mask[:, :, None] & groups.mask[:, None]).to(document.dtype)
    features = document[rows]
    if isinstance(scorer.interaction, JointNetwork):
        owners = torch.arange(len(rows), device=rows.device).repeat_interleave(rows.shape[1])
        assert isinstance(outputs.query, Tensor)
        found = interaction_features(
            scorer.interaction, outputs.query, features.flatten(0, 1), owners, scorer.task
        )
        features = found.reshape(*rows.shape, -1)
    # Queries that were left out may have had the largest groups.
    expected = gram[:, : rows.shape[1], : rows.shape[1]].to(document.dtype)
    difference = _gram(features) - expected
    return ((difference.square() * both).sum((1, 2)) / both.sum((1, 2))).mean()


def _gram(features: Float[Tensor, "queries group dim"]) -> Float[Tensor, "queries group group"]:
    units = F.normalize(features, dim=-1)
    return units @ units.transpose(1, 2)
