"""From token states to one vector per text.

States arrive packed: the tokens of all texts end to end, no padding among them. Left or right padding,
and how much of it, therefore cannot change a result.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.contract.texts import Pooling


def pool(
    states: Float[Tensor, "tokens dim"], lengths: Int64[Tensor, " texts"], pooling: Pooling
) -> Float[Tensor, "texts dim"]:
    r"""Pool the token states of each text into one vector, in float32 at least.

    With $h_1 \dots h_T$ the states of one text: ``cls`` is $h_1$, ``last_token`` is $h_T$, ``mean`` is
    $\frac{1}{T} \sum_t h_t$, ``max`` is the maximum of each coordinate and ``weighted_mean`` is
    $\sum_t t\, h_t / \sum_t t$, which favours the late tokens of a causal model.

    Source: ``weighted_mean`` is SGPT, Muennighoff (2022), https://arxiv.org/abs/2202.08904.
    """
    states = widen(states)
    ends = lengths.cumsum(0)
    if pooling == "cls":
        return states[ends - lengths]
    if pooling == "last_token":
        return states[ends - 1]
    if pooling == "max":
        return torch.segment_reduce(states, "max", lengths=lengths)
    if pooling == "mean":
        # A text without any word, which only a table of words can meet, gets zeros.
        return torch.segment_reduce(states, "mean", lengths=lengths, initial=0)
    weights = positions(lengths).to(states.dtype) + 1
    total = lengths.to(states.dtype) * (lengths + 1) / 2
    return torch.segment_reduce(states * weights[:, None], "sum", lengths=lengths) / total[:, None]


def widen(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return values in float32 at least."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def positions(lengths: Int64[Tensor, " texts"]) -> Int64[Tensor, " tokens"]:
    """Return the place of each token in its own text, counted from 0."""
    starts = lengths.cumsum(0) - lengths
    total = int(lengths.sum())
    return torch.arange(total, device=lengths.device) - torch.repeat_interleave(starts, lengths)


def pack_states(
    states: Float[Tensor, "texts width dim"], mask: Bool[Tensor, "texts width"]
) -> tuple[Float[Tensor, "tokens dim"], Int64[Tensor, " texts"]]:
    """Drop the padding, on whichever side it is; return the packed states and the lengths."""
    return states[mask], mask.sum(1)
