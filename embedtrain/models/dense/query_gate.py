r"""Token-aware query gates: the words of a query decide which coordinates of its vector count.

With e the vector of a query, $v \in R^V$ a weight for each vocabulary entry that occurs in it, and W, b learned,

$$e' = \mathrm{normalise}\left(\mathrm{softmax}(W v + b) \odot e\right)$$

Documents keep e. ``slr`` gives each entry that occurs one learned number, ``llr`` the largest of $\max(0, a^\top h_t + c)$
over its places. There the vocabulary is never laid out: $W v$ is a sum of the columns of the entries that occur.
``clr`` takes all entries that the masked-language head expects of the query's first token,
$v = \log(1 + \max(0, z_1))$ with $z_1$ its logits, so that words count which the query does not hold.

Source: LexSemBridge, https://github.com/Jasaxion/LexSemBridge. Its released code trains with the gate and then saves
and evaluates the model without it; here both are offered, and what is saved is what was asked for.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.models.backbone.language_head import MaskedLanguageModel
from embedtrain.models.pooling import widen
from embedtrain.models.saved_part import SavedPart
from embedtrain.packed import Texts
from embedtrain.section import Section


class QueryGateConfig(Section):
    """A gate on query vectors."""

    kind: Literal["slr", "llr", "clr"] = "slr"
    """``slr``: which entries occur; ``llr``: how much each matters, learned from its state; ``clr``: which the
    masked-language head expects, for backbones that kept it."""
    at_inference: bool = True
    """Keep the gate in the exported model; false exports the plain model that the gate trained."""


class QueryGate(SavedPart):
    """The gate; it begins uniform, as if it were not there.

    ``special_ids`` carry no word; ``language``, for ``clr``, shares the encoder's weights.
    """

    weights_file = "query_gate.safetensors"
    shared = ("language.",)

    special: Tensor

    def __init__(
        self,
        config: QueryGateConfig,
        *,
        vocabulary: int,
        width: int,
        dim: int,
        special_ids: list[int],
        language: MaskedLanguageModel | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.language = language
        self.columns = nn.Parameter(torch.zeros(vocabulary, dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        # Shape [1], not []: DeepSpeed cannot broadcast 0-dimensional parameters.
        self.scale = nn.Parameter(torch.ones(1)) if config.kind == "slr" else None
        self.token_weight = nn.Linear(width, 1) if config.kind == "llr" else None
        special = torch.zeros(vocabulary, dtype=torch.bool)
        special[special_ids] = True
        self.register_buffer("special", special, persistent=False)

    def forward(
        self,
        vectors: Float[Tensor, "texts dim"],
        states: Float[Tensor, "tokens width"],
        texts: Texts,
    ) -> Float[Tensor, "texts dim"]:
        """Return gated and normalised vectors of texts, from their tokens' states laid end to end."""
        factors = self.factors(states, texts)
        return F.normalize(factors.to(vectors.dtype) * vectors, dim=1)

    def factors(
        self, states: Float[Tensor, "tokens width"], texts: Texts
    ) -> Float[Tensor, "texts dim"]:
        """Return the softmax that each coordinate is multiplied with; each text's sum to 1."""
        if (
            self.language is not None
        ):  # what the head expects in the place of each text's first token
            first = self.language.transform(states[texts.lengths.cumsum(0) - texts.lengths])
            logits = F.linear(first, self.language.weight, self.language.bias)
            summed = logits.relu().log1p() @ self.columns
        else:
            summed = self._occurring(states, texts)
        return widen(summed).add(self.bias).softmax(1)

    def _occurring(
        self, states: Float[Tensor, "tokens width"], texts: Texts
    ) -> Float[Tensor, "texts dim"]:
        """Return the sum of the columns of the entries that occur in each text, each with its weight."""
        size = len(self.special)
        owner = torch.arange(len(texts), device=texts.ids.device).repeat_interleave(texts.lengths)
        wanted = ~self.special[texts.ids]
        pairs = (owner * size + texts.ids)[wanted]
        keys, entry = torch.unique(pairs, return_inverse=True)
        if self.token_weight is None:
            assert self.scale is not None
            weights = self.scale.expand(len(keys))
        else:
            found = F.relu(self.token_weight(states[wanted])[:, 0])
            weights = found.new_zeros(len(keys)).scatter_reduce(0, entry, found, "amax")
        added = weights[:, None] * self.columns[keys % size]
        return added.new_zeros(len(texts), added.shape[1]).index_add(0, keys // size, added)
