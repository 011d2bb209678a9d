"""What every objective is: frozen hyper-parameters and one call from outputs to a loss."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class Objective(BaseModel, ABC):
    """A training objective. Its fields are the recipe's ``objective:`` section.

    It owns no model, rank, tokenizer or logger: it never encodes, gathers, logs or caches. A subclass is
    final, declares ``name: Literal["..."]`` and is found by being in this package.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @property
    def needs_all_queries(self) -> bool:
        """Whether queries are candidates too, so that those of other ranks must be brought."""
        return False

    @property
    def uses_guide(self) -> bool:
        """Whether it needs the embeddings of a guide, a second model that is not trained."""
        return False

    @property
    def uses_exits(self) -> bool:
        """Whether it compares the vectors of several layers (``model.exits``)."""
        return False

    @property
    def uses_pair_classifier(self) -> bool:
        """Whether it trains a classifier of pairs (``model.pair_classes``)."""
        return False

    @abstractmethod
    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:
        """Return the loss of a batch, averaged over its queries, and figures for the log."""


if TYPE_CHECKING:
    AnyObjective = Objective
    """What an objective that holds others writes, in quotes, as their type: any of the package."""
