"""The stream of batches: a pure function of the step, so resuming is starting at another number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytorch_lightning as pl
from torch.utils.data import DataLoader, IterableDataset

from embedtrain.data.mixture import Draw, Mixture

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Cut:
    """How a step's rows are cut: into micro-batches one after another, each among ranks."""

    micro_batches: int = 1
    rank: int = 0
    ranks: int = 1


@dataclass(eq=False)
class BatchStream(IterableDataset[Batch]):
    """The batches from step ``start`` to step ``stop``, exclusive."""

    mixture: Mixture
    """Which rows train at which step."""
    builder: Callable[[Draw], Batch]
    """Makes a batch of a step's rows, or of a part of them."""
    start: int
    stop: int
    cut: Cut = Cut()
    """Which part of each step this rank gets, and in how many pieces."""

    def __iter__(self) -> Iterator[Batch]:
        cut = self.cut
        for step in range(self.start, self.stop):
            whole = self.mixture.draw(step)
            for number in range(cut.micro_batches):
                micro_batch = whole.part(number, cut.micro_batches)
                yield self.builder(micro_batch.part(cut.rank, cut.ranks))


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
