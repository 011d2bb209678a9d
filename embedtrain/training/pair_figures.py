"""What the log says of the scores that a cross-encoder gives the pairs of a batch."""

import torch
from torch import Tensor

from embedtrain.ops.groups import score_groups
from embedtrain.types import RetrievalOutputs

SAME = 0.02
"""Log-odds; scores of a query's documents that spread less tell none of them apart."""
LONG = 200
"""Steps."""


@torch.no_grad()
def pair_figures(outputs: RetrievalOutputs) -> dict[str, Tensor]:
    """Return how often positives beat negatives, and where the scores of both lie.

    ``score_std`` is that of the scores of one query, averaged: it nears 0 where all documents look alike to the
    model, and the loss of a softmax is then the logarithm of their number.
    """
    groups = score_groups(outputs)
    scores, negatives = groups.scores, groups.negatives
    pairs = groups.positives[:, :, None] & negatives[:, None]
    right = (scores[:, :, None] > scores[:, None]) & pairs
    sizes = groups.mask.sum(1, keepdim=True)
    middle = scores.sum(1, keepdim=True) / sizes
    spread = ((scores - middle).square() * groups.mask).sum(1) / sizes[:, 0]
    return {
        "pair_accuracy": right.sum() / pairs.sum().clamp_min(1),
        "score_positive": _mean(scores, groups.positives),
        "score_negative": _mean(scores, negatives),
        "score_std": spread.sqrt().mean(),
    }


class SameScores:
    """Notices, once, that a model has scored all documents of a query alike for long; it seldom finds back from there."""

    def __init__(self) -> None:
        self._since: int | None = None
        self._told = False

    def seen(self, spread: float, step: int) -> bool:
        """Whether it is to be told now; ``spread`` is the ``score_std`` of a step's log."""
        if spread > SAME:
            self._since = None
            return False
        self._since = step if self._since is None else self._since
        tells = not self._told and step - self._since >= LONG
        self._told = self._told or tells
        return tells


def _mean(scores: Tensor, mask: Tensor) -> Tensor:
    return (scores * mask).sum() / mask.sum().clamp_min(1)
