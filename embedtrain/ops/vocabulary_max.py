"""Max-pooled vocabulary logits: which words a text speaks of, as DupMAE and SPLADE ask."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.ops.maxsim.token_maximum import accumulation_dtype, token_maximum
from embedtrain.packed import upload


def vocabulary_max(
    hidden: Float[Tensor, "tokens dim"],
    lengths: Int64[Tensor, " texts"],
    weight: Float[Tensor, "vocabulary dim"],
    bias: Float[Tensor, " vocabulary"] | None = None,
    *,
    few_gradients: bool = False,
) -> Float[Tensor, "texts vocabulary"]:
    r"""For each text and vocabulary entry, the largest logit over the tokens of the text.

    $$\mu_{nv} = \max_{t \in n} \langle h_t, w_v \rangle + b_v$$

    Texts lie end to end, and lengths on the CPU if nobody is to wait for a device: leave out beforehand the tokens that must not take part (padding, ``[CLS]``).
    A text without tokens gets zeros and no gradient. Ties go to the first token. Logits are float32
    (float64 for float64 inputs). The logits of single tokens are never stored, only the winner of
    each text and entry, which alone gets the gradient. With ``few_gradients`` the backward pass looks for entries whose
    gradient is not 0, as few are behind a ReLU, and follows these alone.

    Source: Xiao et al. (2023), https://arxiv.org/abs/2305.02564.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        lengths = lengths.cpu()
        filled = lengths > 0
        values, _ = token_maximum(weight, hidden, lengths[filled], few_gradients=few_gradients)
        logits = values.T if bias is None else values.T + bias
        if bool(filled.all()):
            return logits
        everything = logits.new_zeros(len(lengths), len(weight))
        places = upload(filled.nonzero().squeeze(1), logits.device)
        return everything.index_copy(0, places, logits)


def vocabulary_max_reference(
    hidden: Float[Tensor, "tokens dim"],
    lengths: Int64[Tensor, " texts"],
    weight: Float[Tensor, "vocabulary dim"],
    bias: Float[Tensor, " vocabulary"] | None = None,
) -> Float[Tensor, "texts vocabulary"]:
    """Compute :func:`vocabulary_max` in plain torch; this defines it."""
    dtype = accumulation_dtype(hidden, weight)
    logits = hidden.to(dtype) @ weight.to(dtype).T
    if bias is not None:
        logits = logits + bias
    empty = logits.new_zeros(len(weight))
    texts = torch.split_with_sizes(logits, lengths.tolist())
    return torch.stack([text.max(0).values if len(text) else empty for text in texts])
