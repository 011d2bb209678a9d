"""What happens around the steps: checkpoints, validation, a clean stop, the CSV log."""

import csv
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import mean_scores, score_ranking
from embedtrain.files import appearing
from embedtrain.progress import console
from embedtrain.training.ranks.processes import any_rank, own_shard
from embedtrain.training.trained_module import TrainedModule
from embedtrain.training.validation import encode_task, rank_task

KEPT = 2
"""Checkpoints kept: should the newest be damaged, there is one before it."""
BEST = "best.ckpt"
METRIC = "ndcg_at_10"
"""What is best."""


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
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
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


@dataclass(eq=False)
class Measurement(StepCallback):
    """Measures the model every ``every_steps`` and at the end, and logs the figures as ``val/...``."""

    every_steps: int

    @abstractmethod
    def measure(self, trainer: pl.Trainer, module: Any) -> Mapping[str, float]:  # noqa: ANN401
        """Return the figures; every rank measures, as weights may be shared."""

    def on_step_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: ANN401
        """Measure if it is time; the last step is always measured."""
        if trainer.global_step % self.every_steps and trainer.global_step != trainer.max_steps:
            return
        figures = {f"val/{name}": value for name, value in self.measure(trainer, module).items()}
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step)


@dataclass(eq=False)
class Validation(Measurement):
    """Scores the model on a held-out task and keeps the best weights."""

    task: RetrievalTask
    folder: Path
    """Where the best weights are kept."""
    patience: int | None = None
    """Measurements without a better score after which training ends; None never ends it."""
    best: float = -1.0
    misses: int = 0

    def measure(self, trainer: pl.Trainer, module: Any) -> Mapping[str, float]:  # noqa: ANN401
        """Score the task, and keep the weights if they are the best so far."""
        ranking = rank_task(self.task, encode_task(module.model, self.task))
        scores = mean_scores(score_ranking(ranking, [METRIC, "recall_at_100"]))
        if any_rank([own_shard().is_first and scores[METRIC] > self.best])[0]:
            self.best, self.misses = scores[METRIC], 0
            save_atomically(trainer, self.folder / BEST, weights_only=True)
        else:
            self.misses += 1
        if is_patience_over(self.state_dict(), self.patience):
            trainer.should_stop = True
            if trainer.is_global_zero and trainer.global_step < trainer.max_steps:
                console.print(
                    f"Stopped at step {trainer.global_step}: {METRIC} was not above "
                    f"{self.best:.4f} in {self.misses} validation{'s' * (self.misses != 1)}; the best weights are kept"
                )
        return scores

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run must know."""
        return {"best": self.best, "misses": self.misses}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on with the best score so far, and the measurements since."""
        self.best, self.misses = state_dict["best"], int(state_dict.get("misses", 0))


def is_patience_over(state: Mapping[str, float], patience: int | None) -> bool:
    """Whether a validation with this state has ended its run."""
    return patience is not None and state.get("misses", 0) >= patience


class WithTeardown(pl.Callback):
    """Its ``teardown`` runs after an exception as well, where Lightning calls none."""

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End."""
        del exception
        self.teardown(trainer, module, "fit")


class CleanStop(WithTeardown):
    """Ends the run after the current step at Ctrl-C or SIGTERM; a second Ctrl-C ends it at once.

    Stopping between steps is what makes the checkpoint resumable: in the middle of an optimizer step
    half of the weights would be new.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.stopped = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: ARG002
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: TrainedModule, _: object, __: object, number: int
    ) -> None:
        """Tell the loop of every rank to end; the checkpoint callback, which comes later, sees it too."""
        module.refuse_bad_loss()
        if not ends_step(trainer, number):
            return
        if any_rank([self.received is not None])[0]:
            self.stopped = trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        os.write(2, b"\nstopping after this step; press Ctrl-C again to stop at once\n")


class CsvLog(Logger):
    """Writes every logged figure to one CSV, a row per step; a resumed run goes on in the same file.

    Args:
        path: The file.
        start_step: Rows after this step, left by a run that was killed, are dropped.
    """

    def __init__(self, path: Path, start_step: int = 0) -> None:
        super().__init__()
        self.path = path
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
        figures = {key: f"{value:.6g}" for key, value in metrics.items() if key != "epoch"}
        if figures:
            row = self._rows.setdefault(step or 0, {"step": str(step or 0)})
            row.update(figures)
            self._write()

    def _write(self) -> None:
        header = dict.fromkeys(key for row in self._rows.values() for key in row)
        with (
            appearing(self.path) as partial,
            partial.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            writer.writerows(self._rows[step] for step in sorted(self._rows))
