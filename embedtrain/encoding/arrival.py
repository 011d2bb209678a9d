"""Embeddings on their way from the device to the host, which goes on meanwhile."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.precision import Chosen
from embedtrain.types import Embeddings, Side, TokenEmbeddings


@dataclass(frozen=True)
class Arriving:
    """Embeddings that a device is still computing and copying; on a CPU they are there.

    The copy waits in the stream behind the kernels that make them: 200 MB take 4 ms of a block that is computed
    for a second, so a stream of its own would gain nothing.
    """

    embeddings: Embeddings
    finite: Bool[Tensor, ""]
    side: Side
    precision: Chosen
    event: Any = None
    """A ``torch.cuda.Event`` that is over when all is here."""

    def __len__(self) -> int:
        return len(self.embeddings)

    @classmethod
    def of(cls, embeddings: Embeddings, side: Side, precision: Chosen) -> "Arriving":
        """Begin the copies of embeddings, in float32, and of whether they are finite."""
        vectors = embeddings if isinstance(embeddings, Tensor) else embeddings.tokens
        finite = download(vectors.isfinite().all())
        if isinstance(embeddings, TokenEmbeddings):
            parts = {one.name: getattr(embeddings, one.name) for one in fields(embeddings)}
            moved: dict[str, Any] = {
                name: download(part.float() if part.is_floating_point() else part)
                for name, part in parts.items()
                if isinstance(part, Tensor) and name != "gates"
            }
            embeddings = replace(embeddings, gates=None, **moved)
        else:
            embeddings = download(embeddings.float())
        event = None
        if vectors.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        return cls(embeddings, finite, side, precision, event)

    def wait(self) -> Embeddings:
        """Return the embeddings once they are here.

        Raises:
            UserError: If one is not finite.
        """
        if self.event is not None:
            self.event.synchronize()
        if not self.finite:
            cure = "The weights hold NaN: train again"
            if self.precision == "fp16":
                cure = "Numbers above 65,504 overflow in fp16: encode in bf16 or fp32"
            raise UserError(f"{self.side} embeddings", "are not finite", cure=cure)
        return self.embeddings


def download(values: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Copy values to the host, pinned, where a copy from a GPU need not be waited for; see an event later."""
    if values.device.type != "cuda":
        return values.cpu()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def pageable(embeddings: Embeddings) -> Embeddings:
    """Return embeddings that are here without the pinned memory they came in, for whoever keeps many of them."""
    if isinstance(embeddings, Tensor):
        return _unpinned(embeddings)
    parts = {one.name: getattr(embeddings, one.name) for one in fields(embeddings)}
    moved: dict[str, Any] = {
        name: _unpinned(part) for name, part in parts.items() if isinstance(part, Tensor)
    }
    return replace(embeddings, **moved)


def _unpinned(values: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    return values.clone() if values.is_pinned() else values
