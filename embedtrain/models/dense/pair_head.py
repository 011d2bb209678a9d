"""The interaction head of a dense model: a small network that scores two vectors together (D2LLM, DSE)."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import nn

from embedtrain.errors import UserError
from embedtrain.interaction_types import ComparingNetwork, Interaction, JointNetwork
from embedtrain.models.dense.query_head import QueryHead
from embedtrain.models.saved_part import SavedPart
from embedtrain.section import Count, Section


class InteractionConfig(Section):
    """Score pairs of vectors by a network instead of their inner product."""

    features: Literal["vectors", "comparisons"] = "vectors"
    """What the network reads: both vectors, with layers of its own for each kind of task behind (D2LLM), or besides
    their products and differences coordinate by coordinate, with one hidden layer (DSE)."""
    hidden: Count = 512
    """Width of the network."""
    shortlist: Count | None = None
    """Documents that the inner product proposes and the network scores; null scores every document."""


def interaction_of(model: nn.Module) -> Interaction | None:
    """Return what an encoder scores pairs by in place of the inner product, if it has such a thing."""
    head, query_head = getattr(model, "interaction", None), getattr(model, "query_head", None)
    if isinstance(query_head, QueryHead):
        return query_head.scorer
    return head.weights if isinstance(head, PairHead) else None


def refuse_interaction(model: nn.Module, place: str) -> None:
    """Refuse a model that scores pairs by a network where inner products are compared.

    Raises:
        UserError: If it has such a network.
    """
    if interaction_of(model) is not None:
        raise UserError(
            place,
            "compares inner products, and this model scores pairs in another way (model.interaction, "
            "query_network or query_codes)",
            cure="Evaluate and search with it, or name another model",
        )


class PairHead(SavedPart, ABC):
    """A network of :mod:`embedtrain.ops.interaction`."""

    weights_file = "interaction.safetensors"
    config: InteractionConfig

    @property
    @abstractmethod
    def weights(self) -> Interaction:
        """Return the parameters as the value that operations take."""


def build_pair_head(dim: int, config: InteractionConfig) -> PairHead:
    """Return a fresh network for vectors of so many coordinates."""
    return (InteractionHead if config.features == "vectors" else ComparisonHead)(dim, config)


class ComparisonHead(PairHead):
    """The network that compares coordinates."""

    def __init__(self, dim: int, config: InteractionConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(4 * dim, config.hidden)
        self.output = nn.Parameter(torch.randn(config.hidden) * config.hidden**-0.5)
        self.output_bias = nn.Parameter(torch.zeros(()))

    @property
    def weights(self) -> ComparingNetwork:
        """Return the parameters as the value that operations take."""
        return ComparingNetwork(
            hidden=self.hidden.weight,
            hidden_bias=self.hidden.bias,
            output=self.output,
            output_bias=self.output_bias,
            shortlist=self.config.shortlist,
        )


class InteractionHead(PairHead):
    """The network that has a branch for each kind of task."""

    def __init__(self, dim: int, config: InteractionConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(2 * dim, config.hidden)
        self.retrieval = nn.Linear(config.hidden, config.hidden)
        self.similarity = nn.Linear(config.hidden, config.hidden)
        self.output = nn.Parameter(torch.randn(config.hidden) * config.hidden**-0.5)

    @property
    def weights(self) -> JointNetwork:
        """Return the parameters as the value that operations take."""
        return JointNetwork(
            hidden=self.hidden.weight,
            hidden_bias=self.hidden.bias,
            retrieval=self.retrieval.weight,
            retrieval_bias=self.retrieval.bias,
            similarity=self.similarity.weight,
            similarity_bias=self.similarity.bias,
            output=self.output,
            shortlist=self.config.shortlist,
        )
