r"""Pointwise distillation: the score itself becomes the teacher's, as in distilled sentence embeddings."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat

from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import score_groups, teacher_groups
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class PointwiseDistillation(Objective):
    r"""Match the teacher's log-odds for every document of a query, beside its label.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{|G_i|} \sum_{c \in G_i} (1-w)\,
    \mathrm{BCE}(\sigma(z_{ic}), y_{ic}) + w\,(z_{ic} - t_{ic})^2, \quad z = a s + b$$

    $y$ is 1 for positives. The teacher's scores are raw log-odds, not probabilities; w = 1 ignores the labels.
    Of inner products, a and b make log-odds, which needs no parameters and can be searched. DSE trains a network on
    [u; v; u*v; |u-v|] over the last layers: ``model.interaction.features: comparisons`` and ``model.layer_pooling.last``, a = 1, b = 0.

    Source: Barkan et al. (2020), https://arxiv.org/abs/1908.05161.
    """

    pair_defaults: ClassVar[dict[str, Any]] = {"scale": 1.0, "bias": 0.0}

    name: Literal["pointwise_distillation"] = "pointwise_distillation"
    weight: float = Field(default=0.5, ge=0, le=1)
    """w, the share of the teacher."""
    scale: PositiveFloat = 20.0
    """a, from similarity to log-odds: cosine spans 2, a cross-encoder's log-odds 20."""
    bias: float = -10.0
    """b, the log-odds of similarity 0."""

    @property
    def uses_pairs(self) -> bool:
        """Every pair stands for itself."""
        return True

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        logits = self.scale * groups.scores + self.bias
        labels = groups.positives.to(logits.dtype)
        errors = (logits - teacher_groups(outputs, groups)).square()
        crossed = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels, reduction="none"
        )
        losses = ((1 - self.weight) * crossed + self.weight * errors) * groups.mask
        metrics = {"squared_error": (errors.detach() * groups.mask).sum() / groups.mask.sum()}
        return ObjectiveOutput((losses.sum(1) / groups.mask.sum(1)).mean(), metrics)
