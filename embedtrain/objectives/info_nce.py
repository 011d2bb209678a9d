r"""InfoNCE: the contrastive loss that nearly all dense retrievers are trained with."""

from typing import Any, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.backend import Backend
from embedtrain.ops.contrast import contrast, contrast_nested
from embedtrain.ops.infonce.nested import Sizes
from embedtrain.ops.infonce.problem import Direction, InfoNCEOptions, InfoNCEOutput
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class InfoNCE(Objective):
    r"""Make each query prefer its positive to every other document of the batch.

    $$\mathcal{L} = -\frac{1}{B} \sum_i \log \frac{\exp(s_{i,p(i)}/\tau)}{\sum_j \exp(s_{ij}/\tau)}$$

    The sum runs over all candidates of the batch, over all ranks, without those whose text is a known
    positive of query $i$. Every option is defined exactly at :func:`embedtrain.ops.infonce.loss.infonce`.

    Also called in-batch softmax, NT-Xent and MultipleNegativesRankingLoss.

    Source: van den Oord et al. (2018), https://arxiv.org/abs/1807.03748.
    """

    pair_defaults: ClassVar[dict[str, Any]] = {"temperature": 1.0, "negatives": "own"}

    name: Literal["info_nce"] = "info_nce"
    temperature: PositiveFloat = 0.05
    """Divides the scores (no unit). A temperature that the model learns takes its place."""
    directions: tuple[Direction, ...] = ("query_to_document",)
    """Add ``document_to_query`` for the symmetric loss; ``query_to_query`` and ``document_to_document``
    for the improved contrastive loss of GTE."""
    partition: Literal["joint", "per_direction"] = "joint"
    """One denominator over all directions, or the mean of one loss per direction."""
    negatives: Literal["all", "own", "others"] = "all"
    """Every candidate of the batch, only the query's own hard negatives, or only documents that other
    queries brought (ColBERT v2's in-batch term)."""
    several_positives: Literal["average", "any", "decoupled"] = "average"
    """How the positives of one query share its loss."""
    false_negative_margin: float | None = None
    """Leave out candidates that score above the positive minus this; null keeps them."""
    false_negative_margin_kind: Literal["absolute", "relative"] = "absolute"
    """``relative`` multiplies the margin by the size of the positive's score."""
    positive_margin: NonNegativeFloat = 0.0
    """Taken from each positive's score before the softmax: it must win by so much (LaBSE: 0.3 of a cosine)."""
    hardness: float = 0.0
    """Adds ``hardness * similarity`` (no gradient) to the logits of negatives."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over all candidates."""
    backend: Backend = "auto"
    """How the loss is computed, never what: ``reference`` stores all scores, the others do not."""

    @property
    def uses_pairs(self) -> bool:
        """With own negatives no other pair is needed."""
        return self.negatives == "own" and not self.needs_all_queries

    @property
    def takes_labels(self) -> bool:
        """Which query brought a candidate matters to nothing but the other directions and choices of negatives."""
        return self.negatives == "all" and not self.needs_all_queries

    @property
    def uses_interaction(self) -> bool:
        """What a model scores pairs by has a direction: queries ask, documents answer."""
        return not self.needs_all_queries

    @property
    def reads_scores(self) -> bool:
        """Only which documents are positives counts."""
        return False

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        result = contrast(outputs, temperature, self._options(), self.backend)
        return ObjectiveOutput(result.loss, _metrics(result, outputs.temperature))

    def at_prefixes(  # noqa: D102
        self, outputs: RetrievalOutputs, sizes: Sizes, *, normalize: bool
    ) -> tuple[Float[Tensor, ""], list[ObjectiveOutput]] | None:
        if self.backend == "reference":
            return None
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        found = contrast_nested(
            outputs,
            temperature,
            self._options(),
            sizes,
            normalize=normalize,
            backend=self.backend,
        )
        if found is None:
            return None
        each = [
            ObjectiveOutput(one.loss, _metrics(one, outputs.temperature)) for one in found.outputs
        ]
        return found.loss, each

    @property
    def needs_all_queries(self) -> bool:
        """Queries are candidates of documents and of other queries."""
        return self.directions != ("query_to_document",)

    @property
    def takes_half(self) -> bool:
        """Its operations add up in float32."""
        return True

    def _options(self) -> InfoNCEOptions:
        return InfoNCEOptions(**self.model_dump(exclude={"name", "temperature", "backend"}))


def _metrics(result: InfoNCEOutput, learned: Tensor | None) -> dict[str, Tensor]:
    metrics = {name: value for name, value in result._asdict().items() if name != "loss"}
    return metrics if learned is None else metrics | {"temperature": learned.detach()}
