"""The stream of batches: a pure function of the step, so resuming is starting at another number.

A batch travels to a GPU as one copy that nobody waits for, because :meth:`embedtrain.packed.Movable.to`, which Lightning
calls, does so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeVar

import pytorch_lightning as pl
from torch.utils.data import DataLoader, IterableDataset

from embedtrain.data.mixture import Cut, Draw, Mixture

Batch = TypeVar("Batch")


@dataclass(eq=False)
class BatchStream(IterableDataset[Batch]):
    """The batches from step ``start`` to step ``stop``, exclusive."""

    mixture: Mixture
    """Which rows train at which step."""
    builder: Callable[[Draw], Batch]
    """Makes a batch of a step's rows, or of a part of them."""
    start: int
    stop: int
    cut: Cut = field(default_factory=Cut)
    """Which part of each step this rank gets, and in how many pieces."""

    def __iter__(self) -> Iterator[Batch]:
        for step, number in self.places:
            yield self.build(step, number)

    @property
    def places(self) -> Iterator[tuple[int, int]]:
        """The step of each batch and its number in the step."""
        return product(range(self.start, self.stop), range(self.cut.micro_batches))

    def build(self, step: int, number: int) -> Batch:
        """Return this rank's part of a micro-batch."""
        return self.builder(self.cut.part(self.mixture.draw(step), number))


class StreamData(pl.LightningDataModule):
    """Gives Lightning the stream; a batch is already whole, so nothing is collated."""

    def __init__(self, stream: BatchStream[Any]) -> None:
        super().__init__()
        self.stream = stream

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the stream as a loader."""
        return DataLoader(self.stream, batch_size=None)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401, ARG002
        """Build a batch that was only promised: this is called when its step begins."""
        return batch() if callable(batch) else batch
