r"""Self-distillation: a model's dense and late-interaction scores teach each other on one batch."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import row_divergences
from embedtrain.ops.row_blocks import RowLosses, Rows, candidate_masks, mean_over_queries
from embedtrain.ops.similarity import all_scores
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs, TokenEmbeddings

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective


class SelfDistillation(Objective):
    r"""Add to an objective the divergence between what a model's two kinds of vectors say.

    $$\mathcal{L} = \mathcal{L}_\mathrm{inner} + \frac{w}{B} \sum_i \sum_{v \in V}
    \mathrm{KL}\left(\mathrm{sg}\,\pi_T(i) \,\middle\|\, \pi_v(i)\right)$$

    $\pi$ is the softmax over the candidates of the batch, over all ranks (known positives that are not positives
    of the row left out); MaxSim is divided by ``temperature``, the inner product of the whole texts' vectors,
    without the weight that the model learns for it, by ``cls_temperature``. ``teacher`` chooses T and V: the mean
    of both logits teaches both (as in M3), MaxSim teaches the dense vector, or the dense vector teaches MaxSim.
    No gradient flows to the teacher. Needs late interaction with ``model.cls_dim``.

    Source: Chen et al. (2024), M3-Embedding, https://arxiv.org/abs/2402.03216.
    """

    name: Literal["self_distillation"] = "self_distillation"
    inner: "AnyObjective"
    """What trains the fused score."""
    weight: NonNegativeFloat = 1.0
    """w."""
    teacher: Literal["both", "late_interaction", "dense"] = "both"
    """Whose distribution is learned."""
    temperature: PositiveFloat = 1.0
    """Of MaxSim, which grows with the length of queries."""
    cls_temperature: PositiveFloat = 0.05
    """Of the inner product of the whole texts' vectors."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        result = self.inner(outputs)
        share = 1.0 if outputs.cls_share is None else outputs.cls_share

        def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
            positive, negative = candidate_masks(outputs, rows)
            mask = positive | negative
            tokens, whole = _views(query, document)
            tokens, whole = tokens / self.temperature, whole / share / self.cls_temperature
            if self.teacher == "late_interaction":
                return row_divergences(whole, tokens.detach(), mask)
            if self.teacher == "dense":
                return row_divergences(tokens, whole.detach(), mask)
            both = ((tokens + whole) / 2).detach()
            return row_divergences(tokens, both, mask) + row_divergences(whole, both, mask)

        divergence = mean_over_queries(outputs, loss)
        metrics = dict(result.metrics) | {"self_divergence": divergence.detach()}
        return ObjectiveOutput(result.loss + self.weight * divergence, metrics)


def _views(
    query: Embeddings, document: Embeddings
) -> tuple[Float[Tensor, "queries documents"], Float[Tensor, "queries documents"]]:
    """Return the scores by tokens alone and by the vectors of whole texts alone."""
    if (
        not isinstance(query, TokenEmbeddings)
        or not isinstance(document, TokenEmbeddings)
        or query.cls is None
        or document.cls is None
    ):
        raise UserError(
            "objective",
            "self_distillation needs both kinds of vectors",
            cure="Set model.kind: late_interaction and model.cls_dim",
        )
    tokens = all_scores(replace(query, cls=None), replace(document, cls=None))
    return tokens, all_scores(query.cls, document.cls)
