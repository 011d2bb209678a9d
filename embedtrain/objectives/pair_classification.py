r"""Classification of pairs: which of a few relations two texts have, from their two vectors or read together."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import NonNegativeInt
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.scored_pairs import labels_of
from embedtrain.section import Count
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class PairClassification(Objective):
    r"""Tell the relation of a query and its first document by a linear layer over three blocks.

    $$\mathcal{L} = -\frac{1}{B} \sum_i \log \mathrm{softmax}\left(W\,[u_i;\, v_i;\, |u_i - v_i|]\right)_{c_i}$$

    The class is the pair's number (``columns: {label: ...}``), W belongs to the model in training
    (``model.pair_classes``) and is not exported. The source uses vectors that are not normalised:
    ``model.similarity: dot`` trains on those.

    With several sources whose classes mean different things, each has its own part of the classifier.

    A cross-encoder's own logits (``model.classes``) take the place of $W\,[\dots]$; its head is exported.

    Source: Reimers and Gurevych (2019), https://arxiv.org/abs/1908.10084 (Sentence-BERT).
    """

    name: Literal["pair_classification"] = "pair_classification"
    uses_pair_classifier: ClassVar[bool] = True
    first: NonNegativeInt = 0
    """The first class of the classifier that is asked for, whose number in the rows is 0; those before belong to other
    sources."""
    count: Count | None = None
    """How many classes these rows have; null: all that follow."""

    @property
    def uses_pairs(self) -> bool:
        """Every pair stands for itself."""
        return True

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        columns = outputs.relevance.positives[:, 0]
        if outputs.pair_logits is not None:
            logits, key = outputs.pair_logits[columns], "model.classes"
        else:
            logits, key = _logits_of_vectors(outputs, columns), "model.pair_classes"
        logits = logits[:, self.first :][:, : self.count]
        classes = labels_of(outputs)[columns].long()
        if bool(((classes < 0) | (classes >= logits.shape[1])).any()):
            raise UserError(
                key,
                "is less than the number of classes in the rows",
                got=logits.shape[1],
                cure="Raise it, and count classes from 0",
            )
        accuracy = (logits.argmax(1) == classes).to(logits.dtype).mean()
        return ObjectiveOutput(F.cross_entropy(logits, classes), {"accuracy": accuracy.detach()})


def _logits_of_vectors(
    outputs: RetrievalOutputs, columns: Int64[Tensor, " queries"]
) -> Float[Tensor, "queries classes"]:
    weight, query, document = outputs.pair_classifier, outputs.query, outputs.document
    if weight is None or not isinstance(query, Tensor) or not isinstance(document, Tensor):
        raise UserError(
            "objective",
            "pair_classification needs a classifier beside a dense model",
            cure="Set model.pair_classes",
        )
    other = document[columns]
    features = torch.cat([query, other, (query - other).abs()], 1)
    return features @ weight.to(features.dtype).T
