"""The scores of each query with the documents it brought, beside the teacher's: what distillation compares."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.grouping import columns_by_owner
from embedtrain.ops.scorers import Scorer
from embedtrain.ops.similarity import take
from embedtrain.packed import upload
from embedtrain.types import Relevance, RetrievalOutputs

GroupMask = Bool[Tensor, "queries group"]
GroupScores = Float[Tensor, "queries group"]


@dataclass(frozen=True)
class Groups:
    """Own queries in rows, the documents that each brought side by side; 0 where there is none.

    ``columns`` says which candidate of the batch stands where, -1 for none.
    """

    columns: Int64[Tensor, "queries group"]
    scores: GroupScores
    positives: GroupMask
    has_negatives: bool = True
    """Whether any query brought one."""

    @property
    def mask(self) -> GroupMask:
        """Where there is a document."""
        return self.columns >= 0

    @property
    def negatives(self) -> GroupMask:
        """Where there is a document that is no positive."""
        return self.mask & ~self.positives


def group_columns(relevance: Relevance) -> Int64[Tensor, "queries group"]:
    """Return the columns of the documents that are each of this process's queries' own, -1 unused.

    The width depends on the owners: where they lie on a device, this waits for it.
    """
    brought = columns_by_owner(relevance.owners, len(relevance.query_ids))
    return brought[relevance.own_rows]


def score_groups(outputs: RetrievalOutputs, score: Callable[..., Tensor] | None = None) -> Groups:
    """Score each query with the documents it brought; other ranks' documents play no part.

    ``score`` takes queries, documents and each document's query, which lies on the CPU, as
    :func:`embedtrain.ops.similarity.pair_scores` does; None takes what the model scores pairs by. Where the model
    has scored pairs itself, nothing is left to score.
    """
    score = score or Scorer(outputs.interaction).pairs
    known = outputs.relevance.on_host
    columns = group_columns(known)
    used = columns >= 0
    owners, places = used.nonzero().unbind(1)
    if outputs.pair_scores is None:
        found = score(outputs.query, take(outputs.document, columns[used]), owners)
    else:
        found = outputs.pair_scores[upload(columns[used], outputs.pair_scores.device)]
    positives = (columns[:, :, None] == known.positives[:, None]).any(2) & used
    there = upload(torch.stack([owners, places]), found.device).unbind()
    return Groups(
        columns=upload(columns, found.device),
        scores=found.new_zeros(columns.shape).index_put(there, found),
        positives=upload(positives, found.device),
        has_negatives=bool((used & ~positives).any()),
    )


def score_triplets(outputs: RetrievalOutputs, name: str) -> tuple[Groups, GroupMask]:
    """Score each query with the documents it brought; say which of them is its first positive.

    Raises:
        UserError: If no query brought a negative; ``name`` is that of the objective.
    """
    groups = score_groups(outputs)
    if not groups.has_negatives:
        raise UserError(
            "objective",
            f"{name} needs hard negatives and the rows have none",
            cure="Mine them with `embedtrain mine`, and do not set data.num_negatives to 0",
        )
    return groups, groups.columns == outputs.relevance.positives[:, :1]


def teacher_groups(outputs: RetrievalOutputs, groups: Groups) -> GroupScores:
    """Return the teacher's scores in the places of the groups' documents, in the type of the scores.

    Raises:
        UserError: If the rows of the batch have none.
    """
    teacher = outputs.relevance.teacher_scores
    if teacher is None:
        raise UserError(
            "objective",
            "learns from a teacher's scores and the rows have none",
            cure="Add them with `embedtrain score`, or name their column in data.sources",
        )
    laid_out = teacher[groups.columns.clamp_min(0)].to(groups.scores.dtype)
    return laid_out.masked_fill(~groups.mask, 0.0)


def wanted_order(outputs: RetrievalOutputs, groups: Groups) -> GroupScores:
    """Return what the groups' documents are to be ordered by: the rows' scores, or positives before negatives."""
    if outputs.relevance.teacher_scores is None:
        return groups.positives.to(groups.scores.dtype)
    return teacher_groups(outputs, groups)


def masked_log_softmax(logits: GroupScores, mask: GroupMask) -> GroupScores:
    """Return log-probabilities over the places of ``mask``; 0 elsewhere, with no gradient there."""
    return only_where(logits, mask).log_softmax(1).masked_fill(~mask, 0.0)


def row_divergences(
    student: GroupScores, teacher: GroupScores, mask: GroupMask
) -> Float[Tensor, " queries"]:
    """Return KL(teacher, student) of each query's logits, over the places of ``mask``."""
    expected = masked_log_softmax(teacher, mask)
    found = masked_log_softmax(student, mask)
    probability = expected.exp().masked_fill(~mask, 0.0)
    return (probability * (expected - found)).sum(1)


def mean_divergence(
    student: GroupScores, teacher: GroupScores, mask: GroupMask
) -> Float[Tensor, ""]:
    """Return the mean of :func:`row_divergences`."""
    return row_divergences(student, teacher, mask).mean()
