r"""Pooling by attention: a learned seed looks at all token states of a text (PMA).

With X the token states of a text, S the seed, and heads that each see a slice of the dimensions,

$$O = \mathrm{LN}(S + \mathrm{softmax}(S W_q (X W_k)^\top / \sqrt{D})\, X W_v), \quad e = \mathrm{LN}(O + \mathrm{relu}(O W_o))$$

where D is the full width, not that of a head. The order of the tokens plays no part.

Source: Lee et al. (2019), https://arxiv.org/abs/1810.00825 (set transformer); Liao et al. (2024),
https://arxiv.org/abs/2406.17262 (D2LLM), which pools a language model so.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.models.pooling import widen
from embedtrain.models.saved_part import SavedPart
from embedtrain.section import Count, Section


class AttentionPoolingConfig(Section):
    """Pool token states by learned attention."""

    num_heads: Count = 32
    """Must divide the width of the backbone."""


class AttentionPooling(SavedPart):
    """A seed that attends to token states, laid end to end without padding.

    The width must be a multiple of the number of heads.
    """

    weights_file = "attention_pooling.safetensors"

    def __init__(self, width: int, config: AttentionPoolingConfig) -> None:
        super().__init__()
        self.config = config
        self.seed = nn.Parameter(torch.empty(1, width))
        nn.init.xavier_uniform_(self.seed)
        self.to_query = nn.Linear(width, width)
        self.to_key = nn.Linear(width, width)
        self.to_value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.output_norm = nn.LayerNorm(width)

    def forward(
        self, states: Float[Tensor, "tokens width"], lengths: Int64[Tensor, " texts"]
    ) -> Float[Tensor, "texts width"]:
        """Return one vector per text, in float32 at least; it is not normalised."""
        heads, width = self.config.num_heads, states.shape[1]
        states = states.to(self.seed.dtype)  # a frozen backbone may be in bfloat16
        key = self.to_key(states).unflatten(1, (heads, -1))
        query = self.to_query(self.seed).reshape(heads, -1)
        logits = widen((key * query).sum(2) / math.sqrt(width))
        value = self.to_value(states).unflatten(1, (heads, -1)).to(logits.dtype)
        owner = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        # The softmax does not depend on what is subtracted, so no gradient passes through the maximum.
        highest = torch.segment_reduce(logits.detach(), "max", lengths=lengths)
        weights = (logits - highest[owner]).exp()
        total = weights.new_zeros(len(lengths), heads).index_add(0, owner, weights)
        summed = value.new_zeros(len(lengths), *value.shape[1:])
        summed = summed.index_add(0, owner, weights[:, :, None] * value)
        pooled: Tensor = self.norm(self.seed + (summed / total[:, :, None]).flatten(1))
        return widen(self.output_norm(pooled + F.relu(self.output(pooled))))
