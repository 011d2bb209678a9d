"""Texts laid end to end, and how values reach a device without making the host wait.

A device works through a queue. Whoever asks it for a number waits until the queue is empty, and it then waits for the
next order in turn. So what shapes depend on stays known on the host, and copies to a device start from pinned memory.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

T = TypeVar("T", bound="Movable")
ALIGNMENT = 16
"""Bytes to which each tensor in a parcel is rounded up."""
LARGEST_PARCEL = 64 << 20
"""Bytes; larger values are no batches, and would pin as much memory again."""


@dataclass(frozen=True)
class Movable:
    """A frozen value whose tensors can be moved; Lightning refuses frozen dataclasses without ``to``.

    A value that comes from the host remembers itself as it was there, all its parts as well; one that is changed,
    by :func:`dataclasses.replace` or otherwise, is a new value and remembers nothing.
    """

    def to(self: T, device: torch.device | str, non_blocking: bool = False) -> T:
        """Return the value on a device; to CUDA all tensors travel in one copy that nobody waits for."""
        if all(_is_on(tensor, torch.device(device)) for tensor in _tensors(self)):
            return self
        if torch.device(device).type == "cuda" and _fits(_tensors(self)):
            sent: T = Parcel.of(self).open(device, self)
            return sent
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in _parts(self)}
        return _remembering(replace(self, **moved), self._known_host())

    @property
    def on_host(self: T) -> T:
        """The value on the CPU; waits for the device only where it was made there."""
        known = self._known_host()
        if known is None:
            known = self.to("cpu")
            _remembering(self, known)
        return known

    def _known_host(self: T) -> T | None:
        if all(tensor.device.type == "cpu" for tensor in _tensors(self)):
            return self
        known: T | None = self.__dict__.get("_host")
        return known


def _remembering(value: T, host: T | None) -> T:
    """Let a value on a device, which is not its own copy on the host, know that copy."""
    if host is not None and host is not value:
        object.__setattr__(value, "_host", host)
    return value


def _parts(value: Movable) -> list[tuple[str, Any]]:
    """Return the fields of a value that move with it."""
    return [
        (one.name, part)
        for one in fields(value)
        if not one.metadata.get("stays")
        and isinstance(part := getattr(value, one.name), Tensor | Movable)
    ]


def _tensors(value: Movable) -> list[Tensor]:
    found: list[Tensor] = []
    for _, part in _parts(value):
        found += [part] if isinstance(part, Tensor) else _tensors(part)
    return found


def _is_on(tensor: Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


def _fits(tensors: list[Tensor]) -> bool:
    """Whether tensors can travel in one parcel."""
    movable = all(x.device.type == "cpu" and not x.requires_grad for x in tensors)
    return movable and sum(x.nbytes for x in tensors) <= LARGEST_PARCEL


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the buffer of a parcel."""

    start: int
    shape: torch.Size
    dtype: torch.dtype

    def view(self, buffer: UInt8[Tensor, " bytes"]) -> Shaped[Tensor, "..."]:
        size = self.shape.numel() * self.dtype.itemsize
        return buffer[self.start : self.start + size].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Parcel:
    """A value whose tensors lie in one buffer: one copy, or one message, takes all of them elsewhere.

    ``fields_of`` holds what the value's class is made of, tensors as places in the buffer, movable parts as parcels
    with a buffer of no bytes.
    """

    kind: type[Any]
    fields_of: dict[str, Any]
    buffer: UInt8[np.ndarray, " bytes"]

    @classmethod
    def of(cls, value: Movable) -> "Parcel":
        """Pack a value that is on the CPU."""
        places: list[tuple[_Place, Tensor]] = []
        parcel = cls._plan(value, places)
        last = places[-1][0] if places else _Place(0, torch.Size([0]), torch.uint8)
        size = last.start + _padded(last.shape.numel() * last.dtype.itemsize)
        buffer = torch.empty(size, dtype=torch.uint8)
        for place, tensor in places:
            place.view(buffer).copy_(tensor)
        return replace(parcel, buffer=buffer.numpy())

    @classmethod
    def _plan(cls, value: Movable, places: list[tuple[_Place, Tensor]]) -> "Parcel":
        found: dict[str, Any] = {}
        for one in fields(value):
            part = getattr(value, one.name)
            if one.metadata.get("stays"):
                continue
            if isinstance(part, Movable):
                part = cls._plan(part, places)
            elif isinstance(part, Tensor):
                before = places[-1][0] if places else _Place(0, torch.Size([0]), torch.uint8)
                start = before.start + _padded(before.shape.numel() * before.dtype.itemsize)
                places.append((_Place(start, part.shape, part.dtype), part))
                part = places[-1][0]
            found[one.name] = part
        return cls(type(value), found, np.empty(0, dtype=np.uint8))

    def open(self, device: torch.device | str, host: Any = None) -> Any:  # noqa: ANN401 - of any kind
        """Return the value on a device; ``host`` is the value itself where it is at hand."""
        here = torch.from_numpy(self.buffer)
        if host is None:
            host = self._built(here, None)
        if torch.device(device).type == "cpu":
            return host
        return self._built(upload(here, device), host)

    def _built(self, buffer: UInt8[Tensor, " bytes"], host: Any) -> Any:  # noqa: ANN401
        """Build the value from a buffer; each part remembers its own part of ``host``."""
        made: dict[str, Any] = {}
        for name, part in self.fields_of.items():
            if isinstance(part, Parcel):
                made[name] = part._built(buffer, host and getattr(host, name))  # noqa: SLF001
            else:
                made[name] = part.view(buffer) if isinstance(part, _Place) else part
        stays = {
            one.name: getattr(host, one.name)
            for one in fields(self.kind)
            if host is not None and one.metadata.get("stays")
        }
        return _remembering(self.kind(**made, **stays), host)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


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
    second: Int64[Tensor, " texts"] | None = None
    """Where the second text of a pair begins, for backbones that tell both apart; None for texts that are none."""

    def select(self, rows: Int64[Tensor, " chosen"]) -> "Texts":
        """Return the texts at ``rows``, in that order; rows on the CPU keep the host from waiting."""
        host = self.on_host
        rows = rows.cpu()
        places, lengths = token_places(host.lengths, rows)
        second = None if host.second is None else host.second[rows]
        return Texts(host.ids[places], lengths, second=second).to(self.ids.device)

    def each(self) -> list[Int64[Tensor, " own"]]:
        """Return the tokens of each text."""
        return list(torch.split(self.ids, self.sizes.tolist()))


def laid_end_to_end(*several: Texts) -> Texts:
    """Return the texts of several values as those of one."""
    ids = torch.cat([texts.on_host.ids for texts in several])
    lengths = torch.cat([texts.on_host.lengths for texts in several])
    return Texts(ids, lengths).to(several[0].ids.device)
