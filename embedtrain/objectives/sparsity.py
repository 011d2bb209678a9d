r"""Sparsity: any objective, and a price for the entries of sparse vectors."""

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.similarity import single_vectors
from embedtrain.ops.word_activity import word_activity
from embedtrain.section import Count, Section
from embedtrain.types import ObjectiveOutput, RetrievalOutputs, WordActivity

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective

DF_MIDDLE = 0.1
"""Document frequency, a share, at which DF-FLOPS charges half."""
DF_STEEPNESS = 10.0


class Penalty(Section):
    r"""What the entries of one side cost, of the mean weights $m_v$ of words over its texts.

    ``flops``: $\sum_v m_v^2$, which presses common words hardest; ``l1``: $\sum_v m_v$, all alike; ``df_flops``: FLOPS
    that charges next to nothing for words that few texts have, $\sum_v (w_v m_v)^2$ with
    $w_v = 1 / (1 + (x_v^{\log 2 / \log a} - 1)^b)$, $a = 0.1$, $b = 10$, and $x_v$ the share of texts that have the word.

    Source: Paria et al. (2020), https://arxiv.org/abs/2004.05665; Lassance and Clinchant (2022), L1 for queries,
    https://arxiv.org/abs/2207.03834; Porco et al. (2025), DF-FLOPS, https://arxiv.org/abs/2505.15070, whose shares come
    from an index that is encoded now and then, ours from the batch.
    """

    kind: Literal["flops", "l1", "df_flops"] = "flops"
    weight: NonNegativeFloat = 0.0
    r"""$\lambda$. It goes with the size of the inner loss: about 1e-3 beside a softmax, 0.1 to 1 beside MarginMSE."""
    target: Count | None = None
    """Entries that a text is to have on average: the weight is where training starts, and follows the target from there,
    by 1 % at a step at most. The weight it has found lies in the checkpoint."""
    more_than: NonNegativeInt = 0
    """Texts with at most so many entries are left alone: they count as empty ones (Geng et al. (2025), the l0 mask,
    https://arxiv.org/abs/2504.14839)."""

    @model_validator(mode="after")
    def _target_can_be_met(self) -> "Penalty":
        if self.target is not None and (not self.weight or self.more_than):
            raise ValueError("target needs a weight to start from, and more_than: 0")
        return self


class Sparsity(Objective):
    r"""Add to an objective what entries cost: $\mathcal{L} + \gamma_t (\lambda_q R(q) + \lambda_d R(d) + \lambda_j J)$.

    The price rises quadratically, $\gamma_t = \min(1, t/T)^2$ at step t of T. $J = \sum_v m^q_v m^d_v$ is the expected
    cost of a score (joint FLOPS). Means are taken over the queries and the candidates of the whole batch, over all
    chunks and ranks; a text that is a candidate twice counts twice. FLOPS of parts do not average to that of the whole,
    so ``trainer.accumulate`` is not offered.

    Source: Formal et al. (2021), SPLADE, https://arxiv.org/abs/2107.05720.
    """

    prices_entries: ClassVar[bool] = True
    name: Literal["sparsity"] = "sparsity"
    inner: "AnyObjective"
    """What makes vectors useful; scores are inner products of 5 to 40, so a softmax wants ``temperature: 1.0``."""
    query: Penalty = Penalty()
    """What entries of queries cost."""
    document: Penalty = Penalty()
    """What entries of documents cost."""
    joint_weight: NonNegativeFloat = 0.0
    r"""$\lambda_j$."""
    warmup_ratio: float = Field(default=1 / 3, ge=0, le=1)
    """Share of the steps over which the price rises."""

    @model_validator(mode="after")
    def _costs_something(self) -> "Sparsity":
        if not (self.query.weight or self.document.weight or self.joint_weight):
            raise ValueError("nothing costs anything: set document.weight, or use inner alone")
        return self

    @property
    def counts_query_words(self) -> int | None:
        """Where queries cost something."""
        asked = self.query.weight or self.joint_weight
        return self.query.more_than if asked else None

    @property
    def target_entries(self) -> tuple[int | None, int | None] | None:
        """Those of both sides, where either has one."""
        targets = self.query.target, self.document.target
        return targets if any(targets) else None

    @property
    def needs_words(self) -> bool:
        """Always."""
        return True

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        queries, documents = single_vectors(
            outputs.query, outputs.document, cure="Set model.kind: sparse"
        )
        query = outputs.query_words or word_activity(queries, self.query.more_than)
        document = word_activity(documents, self.document.more_than)
        # The gradients of means come later, then, and are added to the inner's, in whose memory there is room for them.
        result = self.inner(outputs)
        factors = outputs.price_factors
        asked, given = (1.0, 1.0) if factors is None else factors.unbind()
        price = (
            asked * self.query.weight * penalty(self.query, query)
            + given * self.document.weight * penalty(self.document, document)
            + self.joint_weight * (query.mean * document.mean).sum()
        )
        ramp = self.ramp(outputs.progress)
        metrics = result.metrics | {"sparsity_loss": ramp * price.detach()}
        if factors is not None:
            metrics |= {"query_price": factors[0], "document_price": factors[1]}
        return ObjectiveOutput(result.loss + ramp * price, metrics)

    def ramp(self, progress: float | None) -> float:
        """Return the share of the price that is charged now; all of it outside training."""
        if progress is None or not self.warmup_ratio:
            return 1.0
        return float(min(1.0, progress / self.warmup_ratio)) ** 2


def penalty(config: Penalty, words: WordActivity) -> Float[Tensor, ""]:
    """Return what the words of one side cost, before any weight."""
    if config.kind == "l1":
        return words.mean.sum()
    if config.kind == "flops":
        return words.mean.square().sum()
    share = words.share.clamp_min(torch.finfo(words.share.dtype).tiny)
    exponent = torch.log(torch.tensor(2.0)) / torch.log(torch.tensor(DF_MIDDLE))
    charged = 1 / (1 + (share ** exponent.item() - 1) ** DF_STEEPNESS)
    return (charged * words.mean).square().sum()
