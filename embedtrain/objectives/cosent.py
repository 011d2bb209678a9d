r"""CoSENT: pairs that are more alike score higher than pairs that are less."""

from typing import ClassVar, Literal

from pydantic import PositiveFloat

from embedtrain.objectives.base import Objective
from embedtrain.ops.scored_pairs import order_loss, scored_pairs
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class CoSENT(Objective):
    r"""Order the similarities of scored pairs as their scores order them.

    $$\mathcal{L} = \log\Big(1 + \sum_{y_i < y_j} \exp\big(a\,(s_i - s_j)\big)\Big)$$

    i and j are pairs of texts, over all ranks. Equal scores give no term: a batch of equal scores costs 0.

    Source: Su (2022), https://kexue.fm/archives/8847.
    """

    name: Literal["cosent"] = "cosent"
    needs_all_queries: ClassVar[bool] = True  # pairs are compared with those of other ranks
    scale: PositiveFloat = 20.0
    """a, times the similarity."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        pairs = scored_pairs(outputs)
        return ObjectiveOutput(order_loss(pairs.similarity, pairs.labels, self.scale), {})
