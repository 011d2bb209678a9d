r"""Word prediction: the vector of a definition shall name the word that it defines."""

from typing import ClassVar, Literal

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.linear_cross_entropy import UNLABELLED, linear_cross_entropy
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class WordPredictionLoss(Objective):
    r"""Predict a query's first positive, a word of one token, by the masked-language head of the backbone.

    $$\mathcal{L} = -\frac{1}{B} \sum_{i : w_i} \log \mathrm{softmax}\left(W\, t(q_i) + b\right)_{w_i}$$

    t, W and b are the head (``model.word_head``), which is not trained and not exported. A word of several tokens costs
    nothing; the mean still runs over all queries, so that ranks agree with one process. ``labelled_ratio`` in the log
    is the share of queries with a word of one token. Vectors are not normalised: ``model.similarity: dot``.

    Source: Tsukagoshi et al. (2021), DefSent, https://arxiv.org/abs/2105.04339.
    """

    name: Literal["word_prediction"] = "word_prediction"
    uses_word_head: ClassVar[bool] = True

    @property
    def reads_scores(self) -> bool:
        """Only the words count."""
        return False

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        found = outputs.word_prediction
        if found is None:
            raise UserError(
                "objective",
                "word_prediction needs a masked-language head beside a dense model",
                cure="Set model.word_head: true",
            )
        ratio = (found.words != UNLABELLED).to(found.hidden.dtype).mean()
        loss = linear_cross_entropy(found.hidden, found.weight, found.words, found.bias)
        return ObjectiveOutput(loss * ratio, {"labelled_ratio": ratio})
