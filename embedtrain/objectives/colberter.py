r"""ColBERTer: an objective on the fused score, again on the vector of the whole text, and a price for words."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs, TokenEmbeddings

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective


class ColBERTer(Objective):
    r"""Train words, the vector of the whole text and the gate that drops words together.

    $$\mathcal{L} = \mathcal{L}_\mathrm{inner}(s) + \omega\, \mathcal{L}_\mathrm{inner}(s_\mathrm{cls})
    + \lambda\, \mathrm{mean}_i\, \mathrm{mean}_{d \in D_i}\, \mathrm{mean}_{w \in d}\, g_w$$

    where $s$ fuses both scores, $s_\mathrm{cls}$ is the inner product of the vectors of the whole texts
    and $g_w \ge 0$ are the gates of the words of query $i$'s documents $D_i$. Raising $\lambda$ drops more words. Let the
    model train for a while before the gate has to pay: train with ``gate_l1: 0`` first and continue.

    Source: Hofstätter et al. (2022), https://arxiv.org/abs/2203.13088. The right size of $\lambda$ depends
    on the inner loss; tune it to the share of words to drop.
    """

    name: Literal["colberter"] = "colberter"
    inner: "AnyObjective"
    """MarginMSE in the paper; any objective works."""
    cls_weight: NonNegativeFloat = 1.0
    """Weight of the loss on the vector of the whole text alone; 0 leaves it out."""
    gate_l1: NonNegativeFloat = 0.0
    """Price of an open gate."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        result = self.inner(outputs)
        loss, metrics = result.loss, dict(result.metrics)
        if self.cls_weight:
            whole = self.inner(_whole_texts(outputs))
            loss = loss + self.cls_weight * whole.loss
            metrics |= {f"cls_{name}": value for name, value in whole.metrics.items()}
        if self.gate_l1:
            if outputs.gate is None:
                raise UserError("objective.gate_l1", "needs a gate", cure="Set model.gate: true")
            loss = loss + self.gate_l1 * outputs.gate
        if outputs.gate is not None:
            metrics["gate"] = outputs.gate.detach()
        if outputs.cls_share is not None:
            metrics["cls_share"] = outputs.cls_share.detach()
        return ObjectiveOutput(loss, metrics)


def _whole_texts(outputs: RetrievalOutputs) -> RetrievalOutputs:
    """Return the outputs of the dense model within: the vectors of the whole texts, without their share."""
    share = outputs.cls_share
    if share is None:
        raise UserError(
            "objective.cls_weight",
            "needs a vector of the whole text",
            cure="Set model.cls_dim, or cls_weight: 0",
        )

    def cls(embeddings: Embeddings) -> Tensor:
        assert isinstance(embeddings, TokenEmbeddings)
        assert embeddings.cls is not None
        return embeddings.cls

    return replace(outputs.changed(lambda one: cls(one) / share, cls), similarity="dot")
