"""The stream of batches: a pure function of the step, so resuming is starting at another number."""

from collections.abc import Iterator

import pytorch_lightning as pl
from torch.utils.data import DataLoader, IterableDataset

from embedtrain.data.batches import BatchBuilder
from embedtrain.data.mixture import Mixture
from embedtrain.types import RetrievalBatch


class BatchStream(IterableDataset[RetrievalBatch]):
    """The batches from step ``start`` to step ``stop``."""

    def __init__(self, mixture: Mixture, builder: BatchBuilder, start: int, stop: int) -> None:
        self.mixture = mixture
        self.builder = builder
        self.start = start
        self.stop = stop

    def __iter__(self) -> Iterator[RetrievalBatch]:
        for step in range(self.start, self.stop):
            yield self.builder(self.mixture.draw(step))


class RetrievalData(pl.LightningDataModule):
    """Gives Lightning the stream; a batch is already whole, so nothing is collated."""

    def __init__(self, stream: BatchStream) -> None:
        super().__init__()
        self.stream = stream

    def train_dataloader(self) -> DataLoader[RetrievalBatch]:
        """Return the stream as a loader."""
        return DataLoader(self.stream, batch_size=None)
