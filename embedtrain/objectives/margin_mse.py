r"""MarginMSE: the student learns by how much the teacher prefers the positive to each negative."""

from typing import Literal

from pydantic import PositiveFloat

from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import score_triplets, teacher_groups
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class MarginMSE(Objective):
    r"""Match the teacher's margins between a query's first positive and its negatives.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{|N_i|} \sum_{n \in N_i}
    \left(a\,(s_{ip} - s_{in}) - b\,(t_{ip} - t_{in})\right)^2$$

    Only the query's own negatives take part, because the teacher has scored no others. A query without any
    costs 0. A constant added to all of the teacher's scores of a query changes nothing.

    Source: Hofstätter et al. (2020), https://arxiv.org/abs/2010.02666.
    """

    name: Literal["margin_mse"] = "margin_mse"
    scale: PositiveFloat = 1.0
    """a, times the student's margin: cosine lies in [-1, 1] and cannot reach a cross-encoder's margins of 10."""
    teacher_scale: PositiveFloat = 1.0
    """b, times the teacher's margin."""

    @property
    def uses_pairs(self) -> bool:
        """It compares documents of one query."""
        return True

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups, first = score_triplets(outputs, self.name)
        negatives = groups.negatives
        scores, teacher = self.scale * groups.scores, teacher_groups(outputs, groups)
        teacher = self.teacher_scale * teacher
        margin = (scores * first).sum(1, keepdim=True) - scores
        expected = (teacher * first).sum(1, keepdim=True) - teacher
        errors = (margin - expected).square() * negatives
        counts = negatives.sum(1).clamp_min(1)
        kept = negatives.sum().clamp_min(1)
        metrics = {
            "margin": (margin.detach() * negatives).sum() / kept / self.scale,
            "teacher_margin": (expected * negatives).sum() / kept / self.teacher_scale,
        }
        return ObjectiveOutput((errors.sum(1) / counts).mean(), metrics)
