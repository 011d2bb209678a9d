r"""Multi-exit: an objective at several layers of one model, 2D Matryoshka among them."""

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import group_columns, mean_divergence, score_groups
from embedtrain.packed import upload
from embedtrain.section import Count
from embedtrain.types import ObjectiveOutput, RetrievalOutputs

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective


class MultiExit(Objective):
    r"""Train the vectors, or the scores of pairs, of several layers (``model.exits``), so that the model may be cut off at each.

    $$\mathcal{L} = \mathcal{L}_\mathrm{last}(N) + \frac{\lambda}{|S|} \sum_{n \in S} w_n\,
    \mathcal{L}_\mathrm{inner}(n) + \frac{\gamma\, t}{|S|} \sum_{n \in S}
    \mathrm{KL}\left(\mathrm{sg}\,\mathrm{softmax}(x_N / t) \,\middle\|\, \mathrm{softmax}(x_n / t)\right)$$

    N is the last layer and S the exits of this step. The divergence compares the coordinates of one vector, not
    the texts of a batch; it is averaged over queries and over the documents that each query brought, and no
    gradient flows to the last layer. Of a cross-encoder it compares the scores of the documents that a query brought.
    Known methods:

    - 2D Matryoshka: ``inner: {name: matryoshka, ...}``. With ``num_sampled: 1`` here and there a step trains
      last and one earlier layer, each at the full and at one shorter size.
    - ModularStarEncoder's self-distillation: ``layer_weights: depth``, ``average: false``, ``alignment: 0``
      and ``model.exit_heads``, $w_n = n / N$; it has no divergence: the exits teach the layers they share.
    - CoDiEmb's contrast of a middle layer: ``last`` is its sum of similarity losses, ``inner`` InfoNCE on the pairs whose
      score is 1 (``labelled_positives``), ``alignment: 0``. All documents of the batch are candidates here.

    Source: Li et al. (2024), https://arxiv.org/abs/2402.14776 (2DMSE), in the form of sentence-transformers'
    Matryoshka2dLoss; Gurioli et al. (2025), https://arxiv.org/abs/2503.03008 (ModularStarEncoder).
    """

    name: Literal["multi_exit"] = "multi_exit"
    uses_exits: ClassVar[bool] = True
    pair_defaults: ClassVar[dict[str, Any]] = {"alignment_temperature": 1.0}
    inner: "AnyObjective"
    """What every exit is trained on."""
    last: "AnyObjective | None" = None
    """What the last layer is trained on; null: ``inner`` as well."""
    exit_weight: PositiveFloat = 1.0
    """Lambda: the exits together, beside the last layer."""
    layer_weights: Literal["uniform", "depth", "inverse_log", "inverse"] = "uniform"
    """$w_n$: 1, $n/N$, $1/(1+\\ln n)$ or $1/n$, layers counted from 1."""
    average: bool = True
    """Divide by the number of exits of the step; false adds them up."""
    num_sampled: Count | None = None
    """Exits trained at each step besides the last layer, drawn from the batch's own ids: alike on every rank
    and when resumed. Null trains all."""
    alignment: NonNegativeFloat = 1.0
    """Gamma: the pull of the exits' vectors towards the last layer's; 0 is none."""
    alignment_temperature: PositiveFloat = 0.3
    """t; 1 by default for a cross-encoder, whose scores are log-odds."""

    @property
    def uses_pairs(self) -> bool:
        """Where both objectives do."""
        return self.inner.uses_pairs and (self.last is None or self.last.uses_pairs)

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        if not outputs.exits:
            raise UserError(
                "objective",
                "multi_exit compares layers and the model gives one vector per text",
                cure="Name layers in model.exits",
            )
        last = outputs.at_exit(-1)
        result = (self.last or self.inner)(last)
        metrics = dict(result.metrics) | {"loss_last": result.loss.detach()}
        places = self._sampled(outputs)
        share = self.exit_weight / (len(places) if self.average else 1)
        losses = [result.loss]
        for place in places:
            layer = outputs.exits[place]
            part = outputs.at_exit(place)
            found = self.inner(part)
            losses.append(share * self._weight(layer, outputs.exits[-1]) * found.loss)
            metrics[f"loss_layer_{layer}"] = found.loss.detach()
            if self.alignment:
                divergence = self._divergence(part, last)
                losses.append(self.alignment / len(places) * divergence)
                metrics[f"divergence_layer_{layer}"] = divergence.detach()
        return ObjectiveOutput(torch.stack(losses).sum(), metrics)

    def _sampled(self, outputs: RetrievalOutputs) -> list[int]:
        """Return the places among ``exits`` of those that this batch trains, without the last layer's."""
        count = len(outputs.exits) - 1
        if self.num_sampled is None or self.num_sampled >= count:
            return list(range(count))
        seed = (
            int(outputs.relevance.document_ids.sum()) ^ count
        )  # Matryoshka draws from the sum itself
        generator = torch.Generator().manual_seed(seed)
        return sorted(torch.randperm(count, generator=generator)[: self.num_sampled].tolist())

    def _weight(self, layer: int, last: int) -> float:
        if self.layer_weights == "depth":
            return layer / last
        if self.layer_weights == "inverse_log":
            return 1 / (1 + math.log(layer))
        return 1 / layer if self.layer_weights == "inverse" else 1.0

    def _divergence(self, part: RetrievalOutputs, last: RetrievalOutputs) -> Float[Tensor, ""]:
        if part.pair_scores is not None:
            given, wanted = score_groups(part), score_groups(last).scores.detach()
            temperature = self.alignment_temperature
            scores = given.scores / temperature, wanted / temperature
            return mean_divergence(*scores, given.mask) * temperature
        found = group_columns(part.relevance.on_host)
        columns = upload(found, part.relevance.owners.device)
        mask, rows = columns >= 0, columns.clamp_min(0)
        of_queries = self._of_vectors(part.query, last.query)
        of_documents = (self._of_vectors(part.document, last.document)[rows] * mask).sum(1)
        return (of_queries + of_documents / mask.sum(1)).mean() * self.alignment_temperature

    def _of_vectors(self, student: object, teacher: object) -> Float[Tensor, " texts"]:
        assert isinstance(student, Tensor)
        assert isinstance(teacher, Tensor)
        expected = (teacher.detach() / self.alignment_temperature).log_softmax(1)
        found = (student / self.alignment_temperature).log_softmax(1)
        return F.kl_div(found, expected, reduction="none", log_target=True).sum(1)
