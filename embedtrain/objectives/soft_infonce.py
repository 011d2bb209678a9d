r"""InfoNCE with soft labels: the annotated positive, and beside it what a reranker makes of the candidates."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from embedtrain.objectives.base import Objective
from embedtrain.ops.backend import Backend
from embedtrain.ops.contrast import contrast
from embedtrain.ops.groups import mean_divergence, score_groups, teacher_groups
from embedtrain.ops.infonce.problem import InfoNCEOptions
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class SoftInfoNCE(Objective):
    r"""Add to InfoNCE the divergence from the teacher's distribution over the query's own documents.

    $$\mathcal{L} = \mathcal{L}_\mathrm{InfoNCE} + \frac{\lambda}{B} \sum_i
    \mathrm{KL}\left(\mathrm{softmax}_{G_i}(t_i/\tau_t) \,\middle\|\, \mathrm{softmax}_{G_i}(s_i/\tau)\right)$$

    $G_i$ are the positives and negatives that query i brought. As $\tau_t \to 0$ the second term becomes the
    cross-entropy of the document that the teacher likes best.

    Source: LG-ANNA-Embedding (2025), https://arxiv.org/abs/2506.07438; its weight is not published, 1 is ours.
    """

    name: Literal["soft_infonce"] = "soft_infonce"
    temperature: PositiveFloat = 0.05
    """Divides the student's scores. A temperature that the model learns takes its place."""
    teacher_temperature: PositiveFloat = 1.0
    """Divides the teacher's scores."""
    weight: NonNegativeFloat = 1.0
    """Of the soft labels; 0 is InfoNCE."""
    negatives: Literal["all", "own"] = "all"
    """What InfoNCE compares with: every candidate of the batch, or the query's own negatives."""
    backend: Backend = "auto"
    """How InfoNCE is computed, never what."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        options = InfoNCEOptions(negatives=self.negatives)
        hard = contrast(outputs, temperature, options, self.backend)
        teacher = teacher_groups(outputs, groups) / self.teacher_temperature
        soft = mean_divergence(groups.scores / temperature, teacher, groups.mask)
        metrics = {"accuracy": hard.accuracy, "margin": hard.margin, "divergence": soft.detach()}
        return ObjectiveOutput(hard.loss + self.weight * soft, metrics)
