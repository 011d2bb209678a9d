r"""Rank-KL: the softmax of similarities becomes that of the ranks of the scores."""

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.scored_pairs import scored_pairs
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class RankKL(Objective):
    r"""Match the distribution over the pairs of a batch that the order of their scores asks for.

    $$\mathcal{L} = \frac{1}{n} \mathrm{KL}\left(\mathrm{softmax}(z/\tau) \,\middle\|\,
    \mathrm{softmax}(s/\tau)\right), \quad z_i = \frac{n - 1 - r_i}{n - 1}$$

    $r_i$ is the rank of score i from 0, the highest, ties averaged; n the number of pairs over all ranks. One
    pair alone costs 0.

    Source: CoDiEmb, https://github.com/TencentCloudADP/youtu-embedding, whose ``batchmean`` of one
    distribution is this division by n.
    """

    name: Literal["rank_kl"] = "rank_kl"
    needs_all_queries: ClassVar[bool] = True  # pairs are compared with those of other ranks
    temperature: PositiveFloat = 0.05
    """tau of both softmaxes."""
    per_pair: bool = True
    """Divide by n, as the source does; false makes the weight independent of the batch size."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        pairs = scored_pairs(outputs)
        similarity = pairs.similarity
        ideal = _ideal(pairs.labels)
        expected = (ideal / self.temperature).log_softmax(0)
        found = (similarity / self.temperature).log_softmax(0)
        divergence = (expected.exp() * (expected - found)).sum()
        return ObjectiveOutput(divergence / (len(ideal) if self.per_pair else 1), {})


def _ideal(labels: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Return 1 for the highest score, 0 for the lowest, the others evenly between by rank."""
    higher = (labels[None, :] > labels[:, None]).sum(1)
    equal = (labels[None, :] == labels[:, None]).sum(1)
    ranks = higher + (equal - 1) / 2
    last = max(len(labels) - 1, 1)
    return ((last - ranks) / last).to(labels.dtype)
