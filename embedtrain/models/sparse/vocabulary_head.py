"""SPLADE's head: the largest logit of the masked-language head for each word, over the tokens of a text."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embedtrain.contract.sparse_contract import SparseContract
from embedtrain.models.backbone.language_head import MaskedLanguageModel
from embedtrain.models.pooling import positions
from embedtrain.ops.similarity import text_of_token
from embedtrain.ops.vocabulary_max import vocabulary_max
from embedtrain.packed import Texts, upload


class VocabularyHead(nn.Module):
    r"""Weights of words: damped maxima over tokens of the logits.

    $$w_v = \log(1 + \mathrm{ReLU}(\mu_v)), \quad \mu_v = \max_t z_{tv}$$

    Both maps are monotone, so the maximum comes first and they run on one row per text. A word whose logits are
    negative everywhere has weight 0 and no gradient. A text none of whose tokens is pooled has no weight at all.
    Rows of the matrix that are no token of the tokenizer are no words, and get none.

    Source: Formal et al. (2021), SPLADE v2, https://arxiv.org/abs/2109.10086.
    """

    dropped: Tensor
    """Entries that are always 0."""

    def __init__(self, language: MaskedLanguageModel, contract: SparseContract) -> None:
        super().__init__()
        self.language = language
        self.activation = contract.activation
        self.pooled_tokens = contract.pooled_tokens
        special = torch.tensor(sorted(language.tokenizer.all_special_ids), dtype=torch.int64)
        self.special = special  # stays on the CPU, where it is decided which tokens are pooled
        known = set(language.tokenizer.get_vocab().values())
        unused = [number for number in range(len(language.weight)) if number not in known]
        dropped = torch.tensor(unused, dtype=torch.int64)
        if contract.special_entries == "drop":
            dropped = torch.cat([special, dropped])
        self.register_buffer("dropped", dropped, persistent=False)

    @property
    def dim(self) -> int:
        """Number of entries: the rows of the output matrix."""
        return len(self.language.weight)

    def forward(
        self, states: Float[Tensor, "tokens width"], texts: Texts
    ) -> Float[Tensor, "texts vocabulary"]:
        """Return the weights of each text, in float32 at least, from the states of its tokens laid end to end."""
        host = texts.on_host
        kept = self._pooled(host)
        lengths = host.lengths
        if not bool(kept.all()):
            states = states.index_select(0, upload(kept.nonzero()[:, 0], states.device))
            lengths = torch.bincount(text_of_token(lengths)[kept], minlength=len(lengths))
        language = self.language
        largest = vocabulary_max(
            language.transform(states), lengths, language.weight, language.bias, few_gradients=True
        )
        weights = largest.relu().log1p()
        if self.activation == "log1p_twice":
            weights = weights.log1p()
        if not len(self.dropped):
            return weights
        return weights.index_fill(1, self.dropped, 0.0)

    def _pooled(self, texts: Texts) -> Bool[Tensor, " tokens"]:
        if self.pooled_tokens == "without_first":
            return positions(texts.lengths) > 0
        if self.pooled_tokens == "without_special":
            return ~torch.isin(texts.ids, self.special)
        return torch.ones_like(texts.ids, dtype=torch.bool)
