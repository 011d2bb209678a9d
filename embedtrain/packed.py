"""Texts laid end to end, and how values reach a device without making the host wait."""

from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

T = TypeVar("T", bound="Movable")


@dataclass(frozen=True)
class Movable:
    """A frozen value whose tensors can be moved; Lightning refuses frozen dataclasses without ``to``."""

    def to(self: T, device: torch.device | str, non_blocking: bool = False) -> T:  # noqa: D102
        moved = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor | Movable)
            and not field.metadata.get("stays")
        }
        return replace(self, **moved)


def upload(values: Shaped[Tensor, "..."], device: torch.device | str) -> Shaped[Tensor, "..."]:
    """Copy values that the host has made to a device; the host goes on at once.

    Values that lie on a device already are moved as ``to`` does.
    """
    if torch.device(device).type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def token_places(
    lengths: Int64[Tensor, " texts"], rows: Int64[Tensor, " chosen"]
) -> tuple[Int64[Tensor, " tokens"], Int64[Tensor, " chosen"]]:
    """Return where the tokens of the texts at ``rows`` lie among all tokens, and those texts' lengths."""
    starts = lengths.cumsum(0) - lengths
    chosen = lengths[rows]
    ends = chosen.cumsum(0)
    within = torch.arange(int(ends[-1]) if len(rows) else 0, device=lengths.device)
    return within + torch.repeat_interleave(starts[rows] - (ends - chosen), chosen), chosen


class HasLengths:
    """What is laid end to end and knows the lengths of its texts on the device and on the host."""

    lengths: Int64[Tensor, " texts"]
    host_lengths: Int64[Tensor, " texts"] | None
    """The lengths again, always on the CPU: shapes depend on them, and a device would have to be asked."""

    def __post_init__(self) -> None:
        if self.lengths.device.type == "cpu":
            object.__setattr__(self, "host_lengths", self.lengths)

    def __len__(self) -> int:
        return self.lengths.numel()

    @property
    def sizes(self) -> Int64[Tensor, " texts"]:
        """The lengths on the CPU; waits for the device only where nobody kept them."""
        known = self.host_lengths
        if known is None:
            known = self.lengths.cpu()
            object.__setattr__(self, "host_lengths", known)
        return known


@dataclass(frozen=True)
class Texts(HasLengths, Movable):
    """Token ids of several texts laid end to end: no padding exists until a backbone asks for it."""

    ids: Int64[Tensor, " tokens"]
    lengths: Int64[Tensor, " texts"]
    host_lengths: Int64[Tensor, " texts"] | None = field(
        default=None, repr=False, compare=False, metadata={"stays": True}
    )

    def select(self, rows: Int64[Tensor, " chosen"]) -> "Texts":
        """Return the texts at ``rows``, in that order."""
        places, lengths = token_places(self.lengths, rows)
        return Texts(self.ids[places], lengths)
