"""BGE-M3's sparse head: a number for each token that a text has, and none for words that it has not."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.files import read_weights
from embedtrain.models.saved_part import SavedPart
from embedtrain.ops.similarity import text_of_token
from embedtrain.packed import Texts

PUBLISHED, CONVERTED = "sparse_linear.pt", "sparse_linear.safetensors"
"""Where the authors keep the weights, as a pickle, and what is read: no pickle is."""


class TokenWeights(SavedPart):
    r"""$w_v = \max_{t: x_t = v} \mathrm{ReLU}(\langle u, h_t \rangle + c)$ of the tokens $x_t$ of a text, else 0.

    Special tokens, the unknown one among them, weigh 0.

    Source: Chen et al. (2024), BGE-M3, https://arxiv.org/abs/2402.03216.
    """

    weights_file = "token_weights.safetensors"
    special: Tensor

    def __init__(self, width: int, vocabulary: int, special_ids: list[int]) -> None:
        super().__init__()
        self.dim = vocabulary
        self.linear = nn.Linear(width, 1)
        self.register_buffer(
            "special", torch.tensor(special_ids, dtype=torch.int64), persistent=False
        )

    def forward(
        self, states: Float[Tensor, "tokens width"], texts: Texts
    ) -> Float[Tensor, "texts entries"]:
        """Return the weight of each token in each text, in float32 at least."""
        wide = torch.promote_types(states.dtype, torch.float32)
        with torch.autocast(states.device.type, enabled=False):
            weight, bias = self.linear.weight.to(wide), self.linear.bias.to(wide)
            values = (states.to(wide) @ weight[0] + bias).relu()
        values = values.masked_fill(torch.isin(texts.ids, self.special), 0)
        places = text_of_token(texts.lengths, len(texts.ids)) * self.dim + texts.ids
        found = values.new_zeros(len(texts) * self.dim)
        return found.scatter_reduce(0, places, values, "amax").view(len(texts), self.dim)

    def load_published(self, folder: Path) -> "TokenWeights":
        """Read the authors' weights, where the folder has them; return the part itself.

        Raises:
            UserError: If they are a pickle still, or the file holds anything else.
        """
        path = folder / CONVERTED
        if not path.is_file():
            if not (folder / PUBLISHED).is_file():
                return self
            cure = f"Save it as {CONVERTED}, as docs/sparse.md shows"
            raise UserError(folder / PUBLISHED, "is a pickle, and none is read", cure=cure)
        found = read_weights(path)
        wanted = {name: one.shape for name, one in self.linear.state_dict().items()}
        shapes = {name: one.shape for name, one in found.items()}
        if shapes != wanted:
            raise UserError(path, "holds other weights than one number of a token", got=shapes)
        self.linear.load_state_dict(found)
        return self
