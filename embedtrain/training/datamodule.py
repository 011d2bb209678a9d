"""The stream of batches: a pure function of the step, so resuming is starting at another number."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytorch_lightning as pl
from torch.utils.data import DataLoader, IterableDataset

from embedtrain.data.mixture import Draw, Mixture

Batch = TypeVar("Batch")


class BatchStream(IterableDataset[Batch]):
    """The batches from step ``start`` to step ``stop``; ``builder`` makes one of a step's rows."""

    def __init__(
        self, mixture: Mixture, builder: Callable[[Draw], Batch], start: int, stop: int
    ) -> None:
        self.mixture = mixture
        self.builder = builder
        self.start = start
        self.stop = stop

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.start, self.stop):
            yield self.builder(self.mixture.draw(step))


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
