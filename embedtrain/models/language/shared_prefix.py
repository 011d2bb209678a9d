"""Read many texts that begin alike: what they share is computed once and kept as keys and values.

All texts share the template's first words; those of one query share the query as well. What comes behind is
computed in batches, longest first, padded on the right, where a causal token does not see it.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import DynamicCache

from embedtrain.models.language.model import LanguageModel
from embedtrain.packed import Texts

BATCH_TOKENS = 4096
"""Tokens of a batch, with what they share and with padding: they bound the keys and values held at once."""


@dataclass(frozen=True)
class Reading:
    """What is to be read.

    Attributes:
        texts: Token ids, on the CPU.
        heads: Tokens at the start of each text that it may share with others.
        wanted: How many states at the end of each text are asked for; at most those behind its head, and one.
    """

    texts: Texts
    heads: Int64[Tensor, " texts"]
    wanted: Int64[Tensor, " texts"]


@dataclass
class TokenCount:
    """How many tokens the texts had, how many were computed, padding included, and how many of these were padding."""

    given: int = 0
    computed: int = 0
    padding: int = 0


def read_states(
    model: LanguageModel,
    reading: Reading,
    *,
    batch_tokens: int = BATCH_TOKENS,
    share: bool = True,
    count: TokenCount | None = None,
) -> Iterator[tuple[list[int], Float[Tensor, "states dim"]]]:
    """Yield rows of texts and the states asked for, text by text; each row comes once.

    Args:
        model: What reads.
        reading: What it reads.
        batch_tokens: Tokens of a batch at most, unless one text alone has more.
        share: Compute shared beginnings once; the states are the same but for rounding.
        count: Is added to.
    """
    count = TokenCount() if count is None else count
    ids = [one.tolist() for one in reading.texts.each()]
    wanted = reading.wanted.tolist()
    count.given += sum(map(len, ids))
    if not ids:
        return
    # The last shared token is left to each text: its state is where the first token behind it is predicted.
    heads = [max(size - 1, 0) if share else 0 for size in reading.heads.tolist()]
    root = common_size([one[:size] for one, size in zip(ids, heads, strict=True)])
    trunk = extended(model, None, ids[0][:root], count)
    for head, rows in _families(ids, heads, root):
        cache = extended(model, trunk, list(head), count)
        start = root + len(head)
        for batch in _batches(rows, [len(one) for one in ids], batch_tokens):
            tails = [ids[row][start:] for row in batch]
            states = model.states(_padded(tails, count), repeated(cache, len(batch)))
            ends = [
                (len(tail) - wanted[row], len(tail)) for row, tail in zip(batch, tails, strict=True)
            ]
            kept = [one[begin:end] for one, (begin, end) in zip(states, ends, strict=True)]
            yield batch, torch.cat(kept)


def common_size(heads: list[list[int]]) -> int:
    """Return how many first tokens all heads share."""
    first, last = min(heads), max(heads)  # of sorted lists, these differ the earliest
    pairs = zip(first, last, strict=False)
    return next(
        (place for place, (a, b) in enumerate(pairs) if a != b), min(map(len, (first, last)))
    )


def _families(
    ids: list[list[int]], heads: list[int], root: int
) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Yield what texts share behind the root, and their rows; those that share nothing come last, together."""
    families: dict[tuple[int, ...], list[int]] = {}
    for row, (one, size) in enumerate(zip(ids, heads, strict=True)):
        families.setdefault(tuple(one[root:size]), []).append(row)
    alone = [rows[0] for rows in families.values() if len(rows) == 1]
    yield from ((head, rows) for head, rows in families.items() if len(rows) > 1)
    if alone:
        yield (), alone


def _batches(rows: list[int], lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Cut rows into batches, longest first."""
    rows = sorted(rows, key=lambda row: -lengths[row])
    while rows:
        size = max(1, batch_tokens // max(lengths[rows[0]], 1))
        yield rows[:size]
        rows = rows[size:]


def _padded(tails: list[list[int]], count: TokenCount) -> Int64[Tensor, "texts tokens"]:
    longest = max(map(len, tails))
    count.computed += longest * len(tails)
    count.padding += longest * len(tails) - sum(map(len, tails))
    return torch.tensor([tail + [0] * (longest - len(tail)) for tail in tails])


def extended(model: LanguageModel, cache: Any, head: list[int], count: TokenCount) -> Any:  # noqa: ANN401
    """Return a cache with further tokens; the one given stays as it is."""
    if not head:
        return cache
    longer = DynamicCache(config=model.model.config) if cache is None else copy.deepcopy(cache)
    count.computed += len(head)
    model.states(torch.tensor([head]), longer)
    return longer


def repeated(cache: Any, times: int) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return a cache for so many texts that all begin with its tokens; the one given stays as it is."""
    if cache is None:
        return None
    several = copy.deepcopy(cache)
    several.batch_repeat_interleave(times)
    return several
