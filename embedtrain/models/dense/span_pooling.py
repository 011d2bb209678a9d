r"""Vectors of spans: a text is encoded once, and each marked span of it is the mean of its own tokens' states.

$$e_S = \mathrm{MLP}\Big(\frac{1}{|S|} \sum_{t \in S} h_t\Big), \quad \mathrm{MLP}(x) = W_2 \max(0, W_1 x + b_1) + b_2$$

A text without a span is one span of all its tokens. Texts that differ in nothing but their span are put together
before the encoder sees them: 32 spans of a text cost what one does.

Source: Chen et al. (2023), Sub-Sentence Encoder, https://arxiv.org/abs/2311.04335.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.spans import IN_SPAN
from embedtrain.contract.texts import Pooling
from embedtrain.models.pooling import pool, widen
from embedtrain.models.saved_part import SavedPart
from embedtrain.packed import Texts
from embedtrain.types import TokenEmbeddings

FIRST_BIT = 31
"""Where the bits begin that say which spans a token is in; ids lie below."""
MOST_SPANS = 32
"""Spans of a text that are encoded together: the bits that are left of 64."""


class SpanMlp(SavedPart):
    """Two layers behind the mean of a span."""

    weights_file = "span_mlp.safetensors"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, pooled: Float[Tensor, "spans width"]) -> Float[Tensor, "spans width"]:
        """Return the transformed means, in float32 at least."""
        return widen(self.outer(F.relu(self.inner(pooled))))


def merge_spans(texts: Texts) -> tuple[Texts, Int64[Tensor, " texts"]]:
    """Put texts together that differ in their span only; return them and the place of each text's span.

    A token of the result holds its id and, from bit 31 on, one bit for each span it is in. Places count all
    spans of the first text of the result, then those of the second.
    """
    rows = torch.split(texts.ids.cpu(), texts.lengths.tolist())
    groups: list[list[int]] = []
    open_groups: dict[bytes, list[int]] = {}
    for number, ids in enumerate(rows):
        key = (ids & (IN_SPAN - 1)).numpy().tobytes()
        group = open_groups.get(key)
        if group is None or len(group) == MOST_SPANS:
            group = open_groups[key] = []
            groups.append(group)
        group.append(number)
    merged = []
    for group in groups:
        together = rows[group[0]] & (IN_SPAN - 1)
        for bit, number in enumerate(group):
            marked = (rows[number] & IN_SPAN) > 0
            inside = marked if marked.any() else torch.ones_like(marked)
            together = together | (inside.long() << (FIRST_BIT + bit))
        merged.append(together)
    order = torch.tensor([number for group in groups for number in group])
    device = texts.ids.device
    lengths = torch.tensor([len(ids) for ids in merged])
    return Texts(torch.cat(merged).to(device), lengths.to(device)), order.argsort().to(device)


def pool_spans(
    texts: Texts,
    states_of: Callable[[Texts], Float[Tensor, "tokens width"]],
    finish: Callable[[Float[Tensor, "spans width"]], Float[Tensor, "spans dim"]],
    way: Pooling = "mean",
) -> TokenEmbeddings:
    """Return the vectors of the spans of texts that :func:`merge_spans` put together.

    ``finish`` makes the vector of a span from its states as they are pooled, by their mean or in another ``way``.
    """
    states = states_of(Texts(texts.ids & (IN_SPAN - 1), texts.lengths))
    device = texts.ids.device
    bits = texts.ids >> FIRST_BIT
    inside = (bits[:, None] >> torch.arange(MOST_SPANS, device=device)) & 1
    token, bit = inside.nonzero(as_tuple=True)
    owner = torch.arange(len(texts), device=device).repeat_interleave(texts.lengths)
    spans, place, sizes = torch.unique(
        owner[token] * MOST_SPANS + bit, return_inverse=True, return_counts=True
    )
    order = place.argsort(stable=True)
    vectors = finish(pool(states[token[order]], sizes, way))
    return TokenEmbeddings(vectors, torch.bincount(spans // MOST_SPANS, minlength=len(texts)))
