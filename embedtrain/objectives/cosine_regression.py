r"""Cosine regression: the similarity of a pair is its score."""

from typing import Literal

from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import score_groups, teacher_groups
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class CosineRegression(Objective):
    r"""Make similarities equal to scores, in square or absolute distance.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{|G_i|} \sum_{c \in G_i} |s_{ic} - y_{ic}|^p$$

    p is 2, or 1 with ``distance: absolute``. $G_i$ are the documents that query i brought. Scores should lie
    where the similarity does: set ``score_range`` in ``data.sources``. Each pair costs by itself, so the size
    of a batch changes nothing; with labels 0 and 1 it is the loss for batches of one sample.

    Source: Reimers and Gurevych (2019), https://arxiv.org/abs/1908.10084 (Sentence-BERT).
    """

    name: Literal["cosine_regression"] = "cosine_regression"
    distance: Literal["squared", "absolute"] = "squared"
    """How errors are measured."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        errors = groups.scores - teacher_groups(outputs, groups)
        costs = errors.square() if self.distance == "squared" else errors.abs()
        return ObjectiveOutput(((costs * groups.mask).sum(1) / groups.mask.sum(1)).mean(), {})
