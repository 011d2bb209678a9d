"""What happens around the steps: checkpoints, validation, a clean stop, the CSV log."""

import csv
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.errors import UserError
from embedtrain.files import appearing, finish
from embedtrain.precision import Precision
from embedtrain.progress import console
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.stopping import requested, unless_stopped
from embedtrain.training.ranks.exchange import from_first
from embedtrain.training.ranks.processes import any_rank, largest, own_shard
from embedtrain.training.trained_module import TrainedModule
from embedtrain.training.validation import METRIC, score_reranked, score_task

KEPT = 2
"""Checkpoints kept: should the newest be damaged, there is one before it."""
BEST = "best.ckpt"
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


@dataclass(eq=False)
class Measurement(StepCallback):
    """Measures the model every ``every_steps`` and at the end, and logs the figures as ``val/...``."""

    every_steps: int
    measured: int = field(default=0, kw_only=True)
    """The step after which was measured last."""

    @abstractmethod
    def measure(self, trainer: pl.Trainer, module: Any) -> Mapping[str, float]:  # noqa: ANN401
        """Return the figures; every rank measures, as weights may be shared."""

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: ANN401
        """Measure what a signal has left unmeasured, as if it had never come."""
        if self.measured < trainer.global_step:
            self.on_step_end(trainer, module)

    def on_step_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: ANN401
        """Measure if it is time; the last step is always measured.

        After a signal time is short: what is not the last step waits until the run goes on.
        """
        is_last = trainer.global_step == trainer.max_steps
        if trainer.global_step % self.every_steps and not is_last:
            return
        if trainer.should_stop and not is_last:
            return
        module.refuse_bad_loss(seen_now=True)
        if own_shard().ranks > 1 or is_last:  # other ranks wait for this one's part
            found: Mapping[str, float] | None = self.measure(trainer, module)
        else:
            found = unless_stopped(lambda: self.measure(trainer, module))
        if found is None:
            trainer.should_stop = True
            return
        self.measured = trainer.global_step
        figures = {f"val/{name}": value for name, value in found.items()}
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step)

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run must know."""
        return {"measured": float(self.measured)}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on; checkpoints of runs that always measured say nothing."""
        self.measured = int(state_dict.get("measured", sys.maxsize))


@dataclass(eq=False)
class Validation(Measurement):
    """Scores the model on a held-out task and keeps the best weights."""

    task: RetrievalTask
    folder: Path
    """Where the best weights are kept."""
    precision: Precision = field(default="auto", kw_only=True)
    """What the task's texts are encoded in."""
    lists: SearchResult | None = field(default=None, kw_only=True)
    """What a first stage found, where the model only puts documents in order."""
    patience: int | None = None
    """Measurements without a better score after which training ends; None never ends it."""
    best: float = -1.0
    misses: int = 0

    def measure(self, trainer: pl.Trainer, module: Any) -> Mapping[str, float]:  # noqa: ANN401
        """Score the task, each text encoded by one rank, and keep the weights if they are the best so far."""
        scores = from_first(self._score(module))
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

    def _score(self, module: Any) -> dict[str, float]:  # noqa: ANN401
        """Do this rank's share; the first rank puts all together, the others return nothing."""
        model, agree = module.model, module.execution.agree
        if self.lists is not None:
            return score_reranked(model, self.task, self.lists, self.precision, agree)
        return score_task(model, self.task, self.precision, agree)

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run must know."""
        return super().state_dict() | {"best": self.best, "misses": self.misses}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on with the best score so far, and the measurements since."""
        super().load_state_dict(state_dict)
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
