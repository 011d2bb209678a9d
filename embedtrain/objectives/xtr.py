r"""XTR: late interaction trained to retrieve the right tokens."""

from typing import Literal

from pydantic import PositiveFloat

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.contrast import contrast_scores
from embedtrain.ops.infonce.problem import InfoNCEOptions
from embedtrain.ops.maxsim.scores import xtr_scores
from embedtrain.section import Count
from embedtrain.types import ObjectiveOutput, RetrievalOutputs, TokenEmbeddings


class XTR(Objective):
    r"""Make each query's tokens retrieve tokens of its positive among all tokens of the batch.

    InfoNCE of :func:`embedtrain.ops.maxsim.scores.xtr_scores`: a document scores by those of its tokens that are
    among the ``top_k`` of a query token over the whole batch, averaged over the query tokens that retrieved
    any. Search such a model with the ``xtr`` index, which fills in what was not retrieved.

    Source: Lee et al. (2023), https://arxiv.org/abs/2304.01982.
    """

    name: Literal["xtr"] = "xtr"
    top_k: Count = 256
    """Tokens that a query token retrieves; keep it below a tenth of the batch's document tokens."""
    temperature: PositiveFloat = 0.05
    """Divides the scores, which are means in [-1, 1]. A temperature that the model learns takes its place."""
    negatives: Literal["all", "own", "others"] = "all"
    """Which candidates a query is compared with, as in ``info_nce``."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        query, document = outputs.query, outputs.document
        if not isinstance(query, TokenEmbeddings) or not isinstance(document, TokenEmbeddings):
            raise UserError(
                "objective",
                "xtr needs several vectors per text",
                cure="Set model.kind: late_interaction",
            )
        scores = xtr_scores(query, document, self.top_k)
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        options = InfoNCEOptions(negatives=self.negatives)
        result = contrast_scores(scores, outputs, temperature, options)
        retrieved = scores.detach().gather(1, outputs.relevance.positives[:, :1]) != 0
        metrics = {
            "accuracy": result.accuracy,
            "margin": result.margin,
            "masked_ratio": result.masked_ratio,
            "retrieved_positive_ratio": retrieved.to(scores.dtype).mean(),
        }
        return ObjectiveOutput(result.loss, metrics)
