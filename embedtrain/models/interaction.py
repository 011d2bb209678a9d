"""The interaction head of a dense model: a small network that scores two vectors together (D2LLM)."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from safetensors.torch import load_file, save_file
from torch import nn

from embedtrain.errors import UserError
from embedtrain.types import Interaction

WEIGHTS_FILE = "interaction.safetensors"


class InteractionConfig(BaseModel):
    """Score pairs of vectors by a network instead of their inner product."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    hidden: PositiveInt = 512
    """Width of the network."""
    shortlist: PositiveInt | None = None
    """Documents that the inner product proposes and the network scores; null scores every document."""


def interaction_of(model: nn.Module) -> Interaction | None:
    """Return the network by which an encoder scores pairs of vectors, if it has one."""
    head = getattr(model, "interaction", None)
    return head.weights if isinstance(head, InteractionHead) else None


def refuse_interaction(model: nn.Module, place: str) -> None:
    """Refuse a model that scores pairs by a network where inner products are compared.

    Raises:
        UserError: If it has such a network.
    """
    if interaction_of(model) is not None:
        raise UserError(
            place,
            "compares inner products, and this model scores pairs by a network (model.interaction)",
            cure="Evaluate and search with it, or name another model",
        )


class InteractionHead(nn.Module):
    """The network of :mod:`embedtrain.ops.interaction`.

    Args:
        dim: Dimension of the vectors.
        config: Sizes.
    """

    def __init__(self, dim: int, config: InteractionConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(2 * dim, config.hidden)
        self.retrieval = nn.Linear(config.hidden, config.hidden)
        self.similarity = nn.Linear(config.hidden, config.hidden)
        self.output = nn.Parameter(torch.randn(config.hidden) * config.hidden**-0.5)

    @property
    def weights(self) -> Interaction:
        """Return the parameters as the value that operations take."""
        return Interaction(
            hidden=self.hidden.weight,
            hidden_bias=self.hidden.bias,
            retrieval=self.retrieval.weight,
            retrieval_bias=self.retrieval.bias,
            similarity=self.similarity.weight,
            similarity_bias=self.similarity.bias,
            output=self.output,
            shortlist=self.config.shortlist,
        )

    def save(self, folder: Path) -> None:
        """Write the weights beside the backbone."""
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    def load(self, folder: Path) -> None:
        """Read the weights back, where the folder has them."""
        if (folder / WEIGHTS_FILE).is_file():
            self.load_state_dict(load_file(folder / WEIGHTS_FILE))
