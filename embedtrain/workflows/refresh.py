"""Refresh during training: at a boundary the live model mines, and the new rows take the old ones' place."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedtrain.data.batches import BatchBuilder
from embedtrain.data.mixture import Mixture
from embedtrain.data.tokenized import TokenizedSource
from embedtrain.errors import UserError
from embedtrain.mining.output import MiningFolder
from embedtrain.mining.task import MiningTask
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import console
from embedtrain.training.refresh import RefreshConfig
from embedtrain.types import RetrievalBatch
from embedtrain.workflows.mine import mine_task

Plan = tuple[Mixture, BatchBuilder]


@dataclass
class RefreshedBatches:
    """Builds the batch of a step from the rows that the model mined last.

    Version v is mined when step ``v * every_steps`` begins and read until the next one is. Which version a
    step reads depends on its number only, and the files of all versions stay, so a resumed run reads the same
    rows; a boundary that is passed again after a kill finds its work done, or goes on with it.
    """

    config: RefreshConfig
    model: TextEncoder
    """The one in training."""
    task: MiningTask
    folder: Path
    """Holds one folder per version."""
    rows: Plan
    """What steps read: until the first refresh those of the recipe."""
    plan: Callable[[TokenizedSource, int], Plan]
    """From mined rows and the version to a mixture and a builder."""
    tokenize: Callable[[Path], TokenizedSource]
    """Opens mined rows."""
    version: int = 0

    def __call__(self, step: int) -> RetrievalBatch:
        """Return the batch of a step; at a boundary mine first."""
        version = step // self.config.every_steps
        if version != self.version:
            rows = self._rows(step, version)
            self.rows, self.version = self.plan(self.tokenize(rows), version), version
        mixture, builder = self.rows
        return builder(mixture.draw(step))

    def _rows(self, step: int, version: int) -> Path:
        folder = MiningFolder(self.folder / f"v{version:04d}")
        if step == version * self.config.every_steps:
            console.print(f"Step {step}: mining version {version} of the negatives")
            config = self.config.mining.model_copy(update={"epoch": version})
            cache = self.folder / "cache"
            mine_task(self.model, self.task, folder.path, config, cache=cache)
            # Embeddings of weights that will never come again; near duplicates serve the next version.
            shutil.rmtree(cache / "embeddings", ignore_errors=True)
        elif not folder.manifest.is_file():
            raise UserError(
                folder.path,
                "is missing, so the run cannot go on with the rows it was trained on",
                cure="Restore it or start a new run",
            )
        return folder.training
