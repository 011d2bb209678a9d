"""What is shown while the steps run."""

from collections.abc import Callable
from contextlib import ExitStack

import pytorch_lightning as pl

from embedtrain.progress import progress_bar
from embedtrain.training.callbacks import WithTeardown, ends_step
from embedtrain.training.speed import describe_speed
from embedtrain.training.trained_module import TrainedModule


class StepProgress(WithTeardown):
    """Shows the step, the last logged loss and speed, and the time left, on a terminal and in a log."""

    def __init__(self) -> None:
        self._shown = ExitStack()
        self._advance: Callable[..., None] | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: ARG002
        """Begin, on one rank."""
        if trainer.is_global_zero:
            total, done = trainer.max_steps, trainer.global_step
            bar = progress_bar("Training", total, unit="steps", done=done, announced=True)
            self._advance = self._shown.enter_context(bar)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: TrainedModule, _: object, __: object, number: int
    ) -> None:
        """Count a step."""
        if self._advance is not None and ends_step(trainer, number):
            line = module.logged
            loss = f"loss {line['train/loss']:.4f}" if line else ""
            self._advance(1, ", ".join(part for part in (loss, describe_speed(line)) if part))

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """End."""
        self._shown.close()
