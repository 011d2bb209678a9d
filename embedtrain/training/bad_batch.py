"""Find a loss that is not finite, and keep its batch for inspection."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from embedtrain.files import appearing
from embedtrain.packed import Movable


@dataclass(frozen=True)
class BadLoss:
    """A loss that is not finite."""

    step: int
    value: float
    path: Path
    """Where its batch is kept."""
    is_late: bool
    """Whether another batch was computed before it was seen."""


class LossWatch:
    """Looks at every loss, on a GPU without making the host wait: when the next one is there.

    The loss is copied to the host behind the work that gives it. When the next batch has been queued the device is past
    it, so its value is there, or so soon that the device does not run out of work meanwhile.
    """

    def __init__(self) -> None:
        self.bad: BadLoss | None = None
        """The first that was found."""
        self._unseen: tuple[Tensor, torch.cuda.Event, Callable[[float, bool], None]] | None = None

    def note(self, loss: Float[Tensor, ""], step: int, save: Callable[[], Path]) -> None:
        """Take the loss of a batch; ``save`` keeps the batch and says where."""
        self.look(is_late=True)

        def judge(value: float, is_late: bool) -> None:
            if self.bad is None and not math.isfinite(value):
                self.bad = BadLoss(step, value, save(), is_late)

        if loss.device.type != "cuda":
            judge(loss.item(), False)
            return
        here = torch.empty((), dtype=loss.dtype, pin_memory=True)
        here.copy_(loss.detach(), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._unseen = here, event, judge

    def look(self, *, is_late: bool = False) -> None:
        """Look at the loss that was noted last, if that was not done yet; this waits until it is there."""
        if self._unseen is not None:
            here, event, judge = self._unseen
            self._unseen = None
            event.synchronize()
            judge(here.item(), is_late)


def save_batch(batch: Movable, folder: Path, step: int, rank: int) -> Path:
    """Write all tensors of a batch into one safetensors file, named by their fields, and return its path."""
    path = folder / f"bad-batch-step-{step:08d}-rank-{rank}.safetensors"
    source = str(getattr(batch, "source", 0))
    with appearing(path) as partial:
        save_file(
            _tensors(batch), partial, {"step": str(step), "rank": str(rank), "source": source}
        )
    return path


def _tensors(value: Movable, prefix: str = "") -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for field in fields(value):
        part = None if field.metadata.get("stays") else getattr(value, field.name)
        if isinstance(part, Movable):
            found |= _tensors(part, f"{prefix}{field.name}.")
        elif isinstance(part, Tensor):
            found[prefix + field.name] = part.detach().cpu().contiguous().clone()
    return found
