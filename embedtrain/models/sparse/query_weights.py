"""Queries without a model: each distinct token has a weight of its own."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from embedtrain.models.saved_part import SavedPart
from embedtrain.ops.similarity import text_of_token
from embedtrain.packed import Texts
from embedtrain.section import Section


class QueryWeightsConfig(Section):
    """How queries get their weights where no model encodes them."""

    start: Literal["ones", "idf"] | Annotated[str, Field(pattern=r".*[./].*")] = "ones"
    """``ones`` (SPLADE-doc), or ``idf``, the rarity of each token among the training documents,
    log(1 + (N - df + 0.5) / (df + 0.5)); or a file: the rarity among the documents of a .jsonl, .parquet or text file,
    or what a .json says, ``{"token": weight}`` (idf.json), where tokens that it lacks weigh 0. A folder that has
    weights keeps its own, and they are trained only where the recipe has this section."""
    trained: bool = True
    """Train them; else they stay as they start."""
    learning_rate: PositiveFloat | None = 1.0e-3
    """Its peak: that of a transformer does not move a weight of 1. Null takes ``trainer.learning_rate``."""


class QueryWeights(SavedPart):
    r"""$q_v = \mathrm{ReLU}(c_v)$ where the query has the token $v$, else 0; special tokens have none.

    The unknown token is none of these: a query does hold it, and other libraries' folders give it a weight.

    A token counts once, however often it occurs. Weights start at 1 (SPLADE-doc), or at what is put there, such as the
    IDF of a corpus; they are trained unless frozen. A weight that is trained below 0 is 0, and stays so.

    Source: Formal et al. (2021), https://arxiv.org/abs/2109.10086; Geng et al. (2024), learned weights,
    https://arxiv.org/abs/2411.04403.
    """

    weights_file = "query_weights.safetensors"
    weight: Tensor
    ordinary: Tensor
    learning_rate: float | None = None
    """The peak of its own, or None."""
    from_folder = False
    """Whether a folder said how much tokens weigh."""

    def __init__(self, vocabulary: int, special_ids: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(vocabulary))
        ordinary = torch.ones(vocabulary)
        ordinary[special_ids] = 0
        self.register_buffer("ordinary", ordinary, persistent=False)

    def freeze(self) -> None:
        """Train the weights no more. Checkpoints keep them, though they leave frozen parameters out."""
        fixed = self.weight.detach()
        del self.weight
        self.register_buffer("weight", fixed)

    @property
    def effective(self) -> Float[Tensor, " vocabulary"]:
        """The weight that each token has in a query, none below 0."""
        weights: Tensor = self.weight.relu() * self.ordinary
        return weights

    def forward(self, texts: Texts) -> Float[Tensor, "texts vocabulary"]:
        """Return the weights of each text's tokens."""
        present = self.effective.new_zeros(len(texts), len(self.weight))
        rows = text_of_token(texts.lengths, len(texts.ids))
        present[rows, texts.ids] = 1
        return present * self.effective
