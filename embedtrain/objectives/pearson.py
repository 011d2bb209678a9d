r"""Pearson: similarities that correlate with the scores of their pairs."""

from typing import ClassVar, Literal

import torch

from embedtrain.objectives.base import Objective
from embedtrain.ops.scored_pairs import scored_pairs
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class Pearson(Objective):
    r"""Maximise the correlation of similarities and scores over a batch.

    $$\mathcal{L} = 1 - \frac{\sum_i (s_i - \bar s)(y_i - \bar y)}{\sqrt{\sum_i (s_i - \bar s)^2 \sum_i (y_i - \bar y)^2}}$$

    0 where $s = \alpha y + \beta$ with $\alpha > 0$, over the pairs of all ranks. A batch whose scores are all
    equal costs 0.

    Source: CoDiEmb, https://github.com/TencentCloudADP/youtu-embedding.
    """

    name: Literal["pearson"] = "pearson"
    needs_all_queries: ClassVar[bool] = True  # pairs are compared with those of other ranks

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        pairs = scored_pairs(outputs)
        similarity, labels = pairs.similarity, pairs.labels
        s, y = similarity - similarity.mean(), labels - labels.mean()
        if not y.any():
            return ObjectiveOutput(similarity.sum() * 0, {})
        tiny = torch.finfo(s.dtype).tiny
        correlation = (s * y).sum() / (s.square().sum() * y.square().sum() + tiny).sqrt()
        return ObjectiveOutput(1 - correlation, {"correlation": correlation.detach()})
