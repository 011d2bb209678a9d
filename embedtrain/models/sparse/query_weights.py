"""Queries without a model: each distinct token has a weight of its own."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.models.saved_part import SavedPart
from embedtrain.ops.similarity import text_of_token
from embedtrain.packed import Texts


class QueryWeights(SavedPart):
    r"""$q_v = \mathrm{ReLU}(c_v)$ where the query has the token $v$, else 0; special tokens have none.

    A token counts once, however often it occurs. Weights start at 1 (SPLADE-doc), or at what is put there, such as the
    IDF of a corpus; they are trained unless frozen. A weight that is trained below 0 is 0, and stays so.

    Source: Formal et al. (2021), https://arxiv.org/abs/2109.10086; Geng et al. (2024), learned weights,
    https://arxiv.org/abs/2411.04403.
    """

    weights_file = "query_weights.safetensors"

    def __init__(self, vocabulary: int, special_ids: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(vocabulary))
        ordinary = torch.ones(vocabulary)
        ordinary[special_ids] = 0
        self.register_buffer("ordinary", ordinary, persistent=False)

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
