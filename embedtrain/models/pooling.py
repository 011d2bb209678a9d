"""From token states to one vector per text.

States arrive packed: the tokens of all texts end to end, no padding among them. Left or right padding,
and how much of it, therefore cannot change a result.
"""

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from embedtrain.contract.texts import Pooling
from embedtrain.ops.similarity import text_of_token
from embedtrain.packed import Texts, upload


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
    # Unsafe leaves torch's own checks of the lengths out, which a GPU would have to answer.
    ends = lengths.cumsum(0)
    if pooling == "cls":
        return states[ends - lengths]
    if pooling == "last_token":
        return states[ends - 1]
    if pooling == "max":
        return torch.segment_reduce(states, "max", lengths=lengths, unsafe=True)
    if pooling == "mean":
        # A text without any word, which only a table of words can meet, gets zeros.
        return torch.segment_reduce(states, "mean", lengths=lengths, initial=0, unsafe=True)
    weights = positions(lengths, len(states)).to(states.dtype) + 1
    total = lengths.to(states.dtype) * (lengths + 1) / 2
    summed = torch.segment_reduce(states * weights[:, None], "sum", lengths=lengths, unsafe=True)
    return summed / total[:, None]


def widen(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return values in float32 at least."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def positions(
    lengths: Int64[Tensor, " texts"], total: int | None = None
) -> Int64[Tensor, " tokens"]:
    """Return the place of each token in its own text, counted from 0.

    ``total`` is the sum of the lengths; without it a device has to be asked.
    """
    starts = lengths.cumsum(0) - lengths
    total = int(lengths.sum()) if total is None else total
    before = torch.repeat_interleave(starts, lengths, output_size=total)
    return torch.arange(total, device=lengths.device) - before


def segment_types(texts: Texts) -> Int64[Tensor, " tokens"] | None:
    """Return the type of each token where texts are pairs: 0, and 1 from the second text on; else None."""
    if texts.second is None:
        return None
    host = texts.on_host
    assert host.second is not None
    starts = host.second.repeat_interleave(host.lengths)
    return upload((positions(host.lengths) >= starts).long(), texts.ids.device)


def grid_places(lengths: Int64[Tensor, " texts"], width: int) -> Int64[Tensor, " tokens"]:
    """Return where tokens lie in a grid with a text in each row, counted row by row.

    ``lengths`` are on the CPU, and so is the result.
    """
    return positions(lengths) + width * text_of_token(lengths)


def in_grid(
    values: Shaped[Tensor, "tokens ..."],
    places: Int64[Tensor, " tokens"],
    shape: tuple[int, ...],
    filling: int = 0,
) -> Shaped[Tensor, "texts width ..."]:
    """Lay values out in a grid of so many texts and columns, each at its place of :func:`grid_places`."""
    grid = values.new_full((shape[0] * shape[1], *values.shape[1:]), filling)
    return grid.index_put((places,), values).view(*shape[:2], *values.shape[1:])


def pack_states(
    states: Float[Tensor, "texts width dim"], mask: Bool[Tensor, "texts width"]
) -> tuple[Float[Tensor, "tokens dim"], Int64[Tensor, " texts"]]:
    """Drop the padding, on whichever side it is; return the packed states and the lengths."""
    return states[mask], mask.sum(1)
