"""CSR's head: the few entries of a dictionary that make up the vector of a dense model."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.code_types import SparseCode
from embedtrain.contract.sparse_contract import Code
from embedtrain.contract.texts import Pooling
from embedtrain.models.pooling import pool, widen
from embedtrain.models.saved_part import SavedPart
from embedtrain.ops.sparse_code import activations, code_of
from embedtrain.packed import Texts


class CodeHead(SavedPart):
    r"""A sparse code of a dense vector: what a dictionary of unit vectors has in common with it, the largest alone.

    $$z = \mathrm{ReLU}(\mathrm{top}_k(W (x - b_{in}) + b_{code}))$$

    The dense vector $x$ is pooled, projected and normalised as the dense model did. Rows of $W$ start at random with
    length 1, both biases at 0. The code of a batch is made from all vectors at once, not chunk by chunk.

    Source: Wen et al. (2025), CSR, https://arxiv.org/abs/2503.01776; Gao et al. (2024), top-k autoencoders,
    https://arxiv.org/abs/2406.04093.
    """

    weights_file = "code.safetensors"
    shared = ("projection.", "idle_steps")
    idle_steps: Tensor
    """Optimizer steps since each entry was last in the code of any text."""

    def __init__(
        self,
        width: int,
        config: Code,
        pooling: Pooling,
        projection: nn.Linear | None,
        *,
        normalized: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self.pooling: Pooling = pooling
        self.projection = projection
        self.normalized = normalized
        dim = width if projection is None else projection.out_features
        rows = torch.empty(config.entries, dim)
        if not rows.is_meta:
            rows = F.normalize(rows.normal_(), dim=1)
        self.dictionary = nn.Parameter(rows)
        self.input_bias = nn.Parameter(torch.zeros(dim))
        self.code_bias = nn.Parameter(torch.zeros(config.entries))
        self.register_buffer("idle_steps", torch.zeros(config.entries, dtype=torch.int64))

    @property
    def dim(self) -> int:
        """Number of entries."""
        return self.config.entries

    def forward(
        self, states: Float[Tensor, "tokens width"], texts: Texts
    ) -> Float[Tensor, "texts dim"]:
        """Return the dense vector of each text, in float32 at least, from the states of its tokens."""
        vectors = pool(states, texts.lengths, self.pooling)
        if self.projection is not None:
            vectors = widen(self.projection(vectors))
        return F.normalize(vectors, dim=1) if self.normalized else vectors

    def code(self, vectors: Float[Tensor, "texts dim"]) -> Float[Tensor, "texts entries"]:
        """Return the code of dense vectors."""
        with torch.autocast(vectors.device.type, enabled=False):
            found = activations(vectors, self.dictionary, self.input_bias, self.code_bias)
            return code_of(found, self.config.kept)

    def seen(self, query: Float[Tensor, "queries dim"], document: Tensor) -> SparseCode:
        """Return what objectives that rebuild the dense vectors of a batch are given."""
        return SparseCode(
            query,
            document,
            self.dictionary,
            self.input_bias,
            self.code_bias,
            self.idle_steps,
            self.config.kept,
        )

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights that sentence-transformers' ``SparseAutoEncoder`` has stored."""
        with torch.no_grad():
            for name, key in THEIRS.items():
                getattr(self, name).copy_(weights[key])

    def theirs(self) -> dict[str, Tensor]:
        """Return the weights under the names of sentence-transformers' ``SparseAutoEncoder``."""
        named = {key: getattr(self, name).detach() for name, key in THEIRS.items()}
        return named | {"stats_last_nonzero": self.idle_steps}


THEIRS = {
    "dictionary": "encoder.weight",
    "input_bias": "pre_bias",
    "code_bias": "latent_bias",
}
