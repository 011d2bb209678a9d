"""What happens around the steps: checkpoints, a clean stop, the CSV log."""

import csv
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from embedtrain.errors import UserError
from embedtrain.files import appearing, finish
from embedtrain.progress import console
from embedtrain.stopping import requested
from embedtrain.training.ranks.processes import largest
from embedtrain.training.trained_module import TrainedModule
from embedtrain.units import show_seconds

KEPT = 2
"""Checkpoints kept: should the newest be damaged, there is one before it."""
SPEED = "speed/"
"""Begins the names of figures that no run repeats; metrics.csv leaves them out."""


class StepCallback(pl.Callback, ABC):
    """Acts when an optimizer step has ended, after however many micro-batches."""

    @abstractmethod
    def on_step_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: ANN401 - a plain LightningModule to Lightning
        """Act on the step that was just done."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, _: object, __: object, number: int
    ) -> None:
        """Act if the micro-batch was the last one of its step."""
        if ends_step(trainer, number):
            self.on_step_end(trainer, module)


@dataclass(eq=False)
class Checkpoints(StepCallback):
    """Saves the whole state every so many steps and at the end, each file whole or not at all."""

    folder: Path
    every_steps: int

    def on_step_end(self, trainer: pl.Trainer, _: object) -> None:
        """Save if it is time, or if the run is being stopped."""
        due = trainer.global_step % self.every_steps == 0
        if due or trainer.should_stop or trainer.global_step == trainer.max_steps:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save the state now and remove all but the last checkpoints."""
        save_atomically(trainer, self.folder / f"step-{trainer.global_step:08d}.ckpt")
        if trainer.is_global_zero:
            for old in list_checkpoints(self.folder)[:-KEPT]:
                old.unlink()


def ends_step(trainer: pl.Trainer, number: int) -> bool:
    """Whether the micro-batch of this number is the last one of an optimizer step."""
    return bool((number + 1) % trainer.accumulate_grad_batches == 0)


def save_atomically(trainer: pl.Trainer, path: Path, *, weights_only: bool = False) -> None:
    """Save under another name first: a kill in the middle leaves no half checkpoint behind.

    Raises:
        UserError: If it cannot be written; the checkpoints before it are untouched.
    """
    partial = path.with_suffix(".partial")
    try:
        trainer.save_checkpoint(partial, weights_only=weights_only)
        if trainer.is_global_zero:
            finish(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            path,
            f"cannot be written ({error.strerror or error})",
            cure="Make room and continue from the checkpoint before it with "
            f"embedtrain train --resume {trainer.default_root_dir}",
        ) from error


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.ckpt"))


class WithTeardown(pl.Callback):
    """Its ``teardown`` runs after an exception as well, where Lightning calls none."""

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End."""
        del exception
        self.teardown(trainer, module, "fit")


class CleanStop(pl.Callback):
    """Ends the run after the step in which a signal asks for it, on all ranks.

    Stopping between steps is what makes the checkpoint resumable: in the middle of an optimizer step
    half of the weights would be new.
    """

    def __init__(self) -> None:
        self.number = 0
        """The signal that the ranks agreed to end at."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: TrainedModule, _: object, __: object, number: int
    ) -> None:
        """Tell the loop of every rank to end; the checkpoint callback, which comes later, sees it too."""
        module.refuse_bad_loss()
        if ends_step(trainer, number):
            self.agree()
            trainer.should_stop |= bool(self.number)

    def agree(self) -> None:
        """Learn of a signal that any rank has heard."""
        self.number = self.number or largest(requested())


@dataclass(eq=False)
class WallLimit(StepCallback):
    """Makes the step in which the time is over the last one, on all ranks: it is measured and saved as such.

    Without a limit it does nothing: it is there for checkpoints of a time when there was one.
    """

    seconds: float
    """Infinite for no limit."""
    spent: float = 0.0
    """Before this process."""
    reached: bool = False
    began: float = 0.0

    def on_train_start(self, _: pl.Trainer, __: pl.LightningModule) -> None:
        """Look at the clock."""
        self.began = time.monotonic()

    @property
    def took(self) -> float:
        """Seconds, over all processes."""
        return self.spent + time.monotonic() - self.began

    def on_step_end(self, trainer: pl.Trainer, _: object) -> None:
        """End where any rank's time is over."""
        if self.seconds == math.inf:
            return
        steps = trainer.max_steps
        if largest(int(self.took >= self.seconds)) and trainer.global_step < steps:
            self.reached = True
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step
            if trainer.is_global_zero:
                console.print(
                    f"Ended at step {trainer.global_step:,} of {steps:,}: {show_seconds(self.seconds)} are over "
                    "(trainer.max_seconds)"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        if self.seconds == math.inf:
            return {}
        return {"spent": self.took, "reached": self.reached, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the time that is left."""
        self.spent = state_dict["spent"]


def is_time_over(state: dict[str, Any], seconds: float | None) -> bool:
    """Whether a :class:`WallLimit` of this state ended its run, and ``seconds`` are no more than it had."""
    known = state.get("seconds", math.inf)  # of an older run
    return bool(state.get("reached")) and seconds is not None and seconds <= known


class CsvLog(Logger):
    """Writes every logged figure to one CSV, a row per step; a resumed run goes on in the same file.

    Args:
        path: The file.
        start_step: Rows after this step, left by a run that was killed, are dropped.
        speed: Whether the file is for the figures of speed, or for all others.
    """

    def __init__(self, path: Path, start_step: int = 0, *, speed: bool = False) -> None:
        super().__init__()
        self.path = path
        self._speed = speed
        self._rows: dict[int, dict[str, str]] = {}
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    if int(row["step"]) <= start_step:
                        self._rows[int(row["step"])] = {k: v for k, v in row.items() if v != ""}

    @property
    def name(self) -> str:
        """Lightning wants a name."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning wants a version."""
        return ""

    def log_hyperparams(self, *_: object, **__: object) -> None:
        """Do nothing: the resolved recipe lies beside the log."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add figures to the row of a step and write the file."""
        figures = {
            key: f"{value:.6g}"
            for key, value in metrics.items()
            if key != "epoch" and key.startswith(SPEED) == self._speed
        }
        if figures:
            row = self._rows.setdefault(step or 0, {"step": str(step or 0)})
            row.update(figures)
            self._write()

    def _write(self) -> None:
        header = dict.fromkeys(key for row in self._rows.values() for key in row)
        with (
            appearing(
                self.path, durable=False
            ) as partial,  # it is written anew many times a minute
            partial.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            writer.writerows(self._rows[step] for step in sorted(self._rows))
