r"""KL distillation: the student's distribution over a query's candidates becomes the teacher's."""

from typing import Any, ClassVar, Literal

from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.backend import Backend
from embedtrain.ops.contrast import contrast
from embedtrain.ops.exponentials import only_where
from embedtrain.ops.groups import (
    Groups,
    masked_log_softmax,
    mean_divergence,
    score_groups,
    teacher_groups,
)
from embedtrain.ops.infonce.problem import InfoNCEOptions
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class KLDistillation(Objective):
    r"""Match the teacher's softmax over the positives and negatives of a query.

    $$\mathcal{L} = \frac{1}{B} \sum_i \mathrm{KL}\left(\mathrm{softmax}_{c \in G_i}(t_{ic}/\tau_t) \,\middle\|\,
    \mathrm{softmax}_{c \in G_i}(s_{ic}/\tau)\right)$$

    $G_i$ are the documents that query i brought. With ``candidates: batch`` the student's softmax runs over
    all candidates of the batch, over all ranks, to which the teacher gives no probability: a document of another
    query is a negative, as in InfoNCE. Known positives of a query and copies of its positives are then left
    out on both sides. A query with one document costs 0 with ``own``.

    Source: Hinton et al. (2015), https://arxiv.org/abs/1503.02531; for retrieval Santhanam et al. (2022),
    https://arxiv.org/abs/2112.01488.
    """

    pair_defaults: ClassVar[dict[str, Any]] = {"temperature": 1.0}

    name: Literal["kl_distillation"] = "kl_distillation"
    temperature: PositiveFloat = 0.05
    """Divides the student's scores. A temperature that the model learns takes its place."""
    teacher_temperature: PositiveFloat = 1.0
    """Divides the teacher's scores: about 1 for a cross-encoder's log-odds, 0.05 for cosine."""
    candidates: Literal["own", "batch"] = "own"
    """What the student's softmax runs over: the query's own documents, or all of the batch."""
    squared_temperature: bool = False
    """Multiply by the square of the student's temperature, which keeps the size of the gradient as it varies."""
    backend: Backend = "auto"
    """For ``batch``: how it is computed, never what."""

    @property
    def uses_pairs(self) -> bool:
        """With own candidates no other pair is needed."""
        return self.candidates == "own"

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        learned = outputs.temperature
        temperature = groups.scores.new_full((), self.temperature) if learned is None else learned
        teacher = teacher_groups(outputs, groups) / self.teacher_temperature
        student = groups.scores / temperature
        if self.candidates == "own":
            loss = mean_divergence(student, teacher, groups.mask)
        else:
            loss = self._in_batch(outputs, groups, student, teacher, temperature)
        if self.squared_temperature:
            loss = loss * temperature**2
        # Where a group has unused places, they hold 0 and could win: they are set to the lowest score.
        best = only_where(student.detach(), groups.mask).argmax(1)
        agreed = best == only_where(teacher, groups.mask).argmax(1)
        return ObjectiveOutput(loss, {"agreement": agreed.to(student.dtype).mean()})

    def _in_batch(
        self,
        outputs: RetrievalOutputs,
        groups: Groups,
        student: Tensor,
        teacher: Tensor,
        temperature: Tensor,
    ) -> Tensor:
        """Take the logarithm of the sum over the batch from InfoNCE, which stores no scores."""
        relevance = outputs.relevance
        contrasted = contrast(outputs, temperature, InfoNCEOptions(), self.backend).loss
        # InfoNCE of several positives is log Z minus the mean of their logits.
        own = groups.positives.to(student.dtype)
        positive = (student * own).sum(1) / own.sum(1)
        log_sum = contrasted + positive.mean()
        ids = relevance.document_ids[groups.columns.clamp_min(0)]
        spared = (ids[:, :, None] == relevance.answers[:, None]).any(2) & groups.negatives
        mask = groups.mask & ~spared
        expected = masked_log_softmax(teacher, mask)
        probability = expected.exp().masked_fill(~mask, 0.0)
        return log_sum + (probability * (expected - student)).sum(1).mean()
