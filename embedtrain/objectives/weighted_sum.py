r"""A weighted sum of objectives on the same batch."""

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, PositiveFloat, model_validator

from embedtrain.objectives.base import Objective
from embedtrain.types import ObjectiveOutput, RetrievalOutputs

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective


class WeightedSum(Objective):
    r"""Add objectives: $\mathcal{L} = \sum_k w_k \mathcal{L}_k$.

    ColBERT v2 adds two: InfoNCE against a query's own negatives, or KL to a teacher, and InfoNCE against the
    documents of other queries (``negatives: others``).
    """

    name: Literal["sum"] = "sum"
    objectives: tuple["AnyObjective", ...] = Field(min_length=1)
    """The terms."""
    weights: tuple[PositiveFloat, ...] = ()
    """One per term; 1 each by default."""

    @model_validator(mode="after")
    def _one_weight_per_term(self) -> "WeightedSum":
        if self.weights and len(self.weights) != len(self.objectives):
            raise ValueError("weights needs one number per term in objectives")
        return self

    @property
    def uses_pairs(self) -> bool:
        """Where each term does."""
        return all(one.uses_pairs for one in self.objectives)

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        weights = self.weights or (1.0,) * len(self.objectives)
        results = [objective(outputs) for objective in self.objectives]
        losses = [weight * result.loss for weight, result in zip(weights, results, strict=True)]
        metrics = {
            f"{number}/{name}": value
            for number, result in enumerate(results)
            for name, value in {"loss": result.loss.detach(), **result.metrics}.items()
        }
        return ObjectiveOutput(torch.stack(losses).sum(), metrics)
