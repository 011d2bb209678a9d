r"""Binary cross-entropy: each document is relevant to its query or not, whatever the others are."""

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import Groups, score_groups, teacher_groups
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class BinaryCrossEntropy(Objective):
    r"""Give relevant documents high log-odds and the others low ones: a classifier of pairs.

    $$\mathcal{L} = \frac{1}{B} \sum_i \frac{1}{|G_i|} \sum_{c \in G_i}
    p\,y_{ic}\,\mathrm{softplus}(-z_{ic}) + (1 - y_{ic})\,\mathrm{softplus}(z_{ic}), \quad z = a s + b$$

    $G_i$ are the documents that query i brought, and y is 1 for its positives. Unlike a softmax it fixes the level of
    the scores: a cross-encoder trained so says probabilities.

    Also called pointwise loss, and BCE with ``pos_weight``.

    Source: Nogueira and Cho (2019), https://arxiv.org/abs/1901.04085.
    """

    pair_defaults: ClassVar[dict[str, Any]] = {"scale": 1.0, "bias": 0.0}

    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    positive_weight: PositiveFloat = 1.0
    """p, times the loss of positives: the number of negatives per positive makes both weigh the same."""
    labels: Literal["positives", "scores"] = "positives"
    """What y is: 1 for positives, or the rows' scores, which then lie in [0, 1]."""
    scale: PositiveFloat = 20.0
    """a, from similarity to log-odds. A cross-encoder's scores are log-odds: 1 there."""
    bias: float = -10.0
    """b, the log-odds of similarity 0; 0 for a cross-encoder."""

    @property
    def says_probability(self) -> bool:
        """Whether the sigmoid of a score itself is trained to be a probability; weights and scales move it."""
        return (self.positive_weight, self.scale, self.bias) == (1.0, 1.0, 0.0)

    @property
    def uses_pairs(self) -> bool:
        """Every pair stands for itself."""
        return True

    @property
    def reads_scores(self) -> bool:
        """Where they are the labels."""
        return self.labels == "scores"

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        groups = score_groups(outputs)
        logits = self.scale * groups.scores + self.bias
        labels = self._labels(outputs, groups)
        weight = logits.new_full((), self.positive_weight)  # on the device itself
        crossed = F.binary_cross_entropy_with_logits(
            logits, labels, reduction="none", pos_weight=weight
        )
        sizes = groups.mask.sum(1)
        right = ((logits.detach() > 0) == (labels > 0.5)) & groups.mask
        accuracy = (right.sum() / sizes.sum()).to(logits.dtype)
        loss = ((crossed * groups.mask).sum(1) / sizes).mean()
        return ObjectiveOutput(loss, {"accuracy": accuracy})

    def _labels(self, outputs: RetrievalOutputs, groups: Groups) -> Tensor:
        if self.labels == "positives":
            return groups.positives.to(groups.scores.dtype)
        labels = teacher_groups(outputs, groups)
        known = outputs.relevance.on_host.teacher_scores
        assert known is not None
        if not bool(((known >= 0) & (known <= 1)).all()):
            raise UserError(
                "objective.labels",
                "takes the rows' scores for probabilities, and some lie outside of [0, 1]",
                got=[round(float(known.min()), 4), round(float(known.max()), 4)],
                cure="Use pointwise_distillation for log-odds, or set score_range of the source",
            )
        return labels
