"""Where each text begins among texts that lie end to end, for the host and for the device."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

import torch
from jaxtyping import Int32, Int64
from torch import Tensor, nn

from embedtrain.packed import upload

Groups = list[tuple[int, int, int]]


@dataclass(frozen=True, eq=False)
class Keys:
    """The tokens that others look at, where those are not all: the first ones of each text."""

    sizes: Sequence[int]
    """How many of each text; on the host."""
    places: Int64[Tensor, " keys"]
    """Where they lie among all tokens."""
    cu_seqlens: Int32[Tensor, " texts_and_one"]
    max_seqlen: int


@dataclass(frozen=True, eq=False)
class Layout:
    """How texts lie end to end; the layers of one pass share it.

    Args:
        sizes: Tokens of each text, on the host.
        cu_seqlens: Where each text begins, and the end of the last, on the device.
        keys: Which tokens are looked at; None for all.
        in_training: Let the backend be chosen as for a step with gradients and, where ``drops``, with dropout,
            although there is none: so a check without either covers what will train.
        drops: Whether attention weights will be dropped.
        first_of: A layer which only the first token of each text leaves (on a CPU).
    """

    sizes: Sequence[int]
    cu_seqlens: Int32[Tensor, " texts_and_one"]
    keys: Keys | None = None
    in_training: bool = False
    drops: bool = False
    first_of: nn.Module | None = None
    masks: dict[tuple[int, int], Any] = field(default_factory=dict, repr=False)
    """What a backend has made of the layout, by window; the next layer takes it from here."""

    @cached_property
    def max_seqlen(self) -> int:
        """Tokens of the longest text."""
        return max(self.sizes)

    @cached_property
    def groups(self) -> Groups:
        """``(number of texts, length, tokens looked at)`` of each run of equally long texts."""
        return length_groups(self.sizes, None if self.keys is None else self.keys.sizes)


def lay_out(
    sizes: Sequence[int],
    device: torch.device,
    attended: Sequence[int] | None = None,
    *,
    in_training: bool = False,
    drops: bool = False,
    first_of: nn.Module | None = None,
) -> Layout:
    """Return how texts of so many tokens lie end to end; the host does not wait for the device.

    Args:
        sizes: Tokens of each text.
        device: Where attention runs.
        attended: How many tokens of each text, from its first, others may look at; None for all.
        in_training: See :class:`Layout`.
        drops: See :class:`Layout`.
        first_of: See :class:`Layout`.
    """
    keys = None
    if attended is not None and list(attended) != list(sizes):
        starts = accumulate(sizes, initial=0)
        ranges = [
            torch.arange(start, start + seen) for start, seen in zip(starts, attended, strict=False)
        ]
        places = upload(torch.cat(ranges), device)
        keys = Keys(attended, places, borders(attended, device), max(attended))
    return Layout(sizes, borders(sizes, device), keys, in_training, drops, first_of)


def borders(sizes: Sequence[int], device: torch.device) -> Int32[Tensor, " texts_and_one"]:
    """Return where each text begins and the last ends, as variable-length attention wants it."""
    ends = torch.tensor([0, *accumulate(sizes)], dtype=torch.int32)
    return upload(ends, device)


def length_groups(lengths: Sequence[int], attended: Sequence[int] | None = None) -> Groups:
    """Return ``(number of texts, length, attended)`` of each run of equally long texts.

    ``attended`` tokens of a text, from its first, are looked at; the others only look.
    """
    pairs = zip(lengths, lengths if attended is None else attended, strict=True)
    return [(len(list(run)), *pair) for pair, run in groupby(pairs)]
