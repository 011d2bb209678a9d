"""Measure the model before the first step and while it trains, keep its best weights, and end in time."""

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.evaluation.measures.metrics import PerQuery, mean_scores
from embedtrain.evaluation.measures.statistics import standard_error
from embedtrain.precision import Precision
from embedtrain.progress import console
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.stopping import unless_stopped
from embedtrain.training.callbacks import StepCallback, save_atomically
from embedtrain.training.ranks.exchange import from_first
from embedtrain.training.ranks.processes import own_shard
from embedtrain.training.validation import METRIC, score_reranked, score_task

BEST = "best.ckpt"
Watcher = Callable[[float, float], None]
"""Told the part of the steps that is done and the score, after each validation; its exception ends the run."""
WATCHERS: list[Watcher] = []
MinGain = float | Literal["auto"] | None


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

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {"measured": float(self.measured)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on; checkpoints of runs that always measured say nothing."""
        self.measured = int(state_dict.get("measured", sys.maxsize))


@dataclass(eq=False)
class Validation(Measurement):
    """Scores the model on a held-out task, the start of the run first, and keeps the best weights."""

    task: RetrievalTask
    folder: Path
    """Where the best weights are kept."""
    measured: int = field(default=-1, kw_only=True)
    precision: Precision = field(default="auto", kw_only=True)
    """What the task's texts are encoded in."""
    lists: SearchResult | None = field(default=None, kw_only=True)
    """What a first stage found, where the model only puts documents in order."""
    patience: int | None = None
    """Measurements without a better score after which training ends; None never ends it."""
    min_gain: MinGain = field(default=None, kw_only=True)
    """How much more than the last that was better a score must be for patience to begin anew."""
    keep: int = field(default=0, kw_only=True)
    """Measurements whose weights are kept, the last ones, besides the best."""
    best: float = -1.0
    misses: int = 0
    reference: list[float] = field(default_factory=list, kw_only=True)
    """Of each query, the score when patience began last; kept where ``min_gain`` asks for it."""

    def measure(self, trainer: pl.Trainer, module: Any) -> Mapping[str, float]:  # noqa: ANN401
        """Score the task, each text encoded by one rank, and keep the weights if they are the best so far."""
        scores, each = from_first(self._score(module))
        self._count(scores[METRIC], each)
        if scores[METRIC] > self.best:
            self.best = scores[METRIC]
            save_atomically(trainer, self.folder / BEST, weights_only=True)
        if self.keep:
            self._keep(trainer)
        for watcher in WATCHERS:
            watcher(trainer.global_step / max(1, trainer.max_steps), scores[METRIC])
        if is_patience_over(self.state_dict(), self.patience):
            trainer.should_stop = True
            if trainer.is_global_zero and trainer.global_step < trainer.max_steps:
                more = "" if self.min_gain is None else " by enough to tell"
                console.print(
                    f"Stopped at step {trainer.global_step}: {METRIC} was not above "
                    f"{self.best:.4f}{more} in {self.misses} validation{'s' * (self.misses != 1)}; the best weights "
                    "are kept"
                )
        return scores

    def _count(self, score: float, each: list[float]) -> None:
        """Count the measurement as better, or as one more that is not."""
        better = score > self.best
        if self.min_gain is not None:
            better = gains(each, self.reference, self.min_gain)
            if better:
                self.reference = each
        self.misses = 0 if better else self.misses + 1

    def _keep(self, trainer: pl.Trainer) -> None:
        """Keep the weights of the last measurements."""
        save_atomically(
            trainer, self.folder / f"weights-{trainer.global_step:08d}.ckpt", weights_only=True
        )
        if trainer.is_global_zero:
            for old in list_weights(self.folder)[: -self.keep]:
                old.unlink()

    def _score(self, module: Any) -> tuple[dict[str, float], list[float]]:  # noqa: ANN401
        """Do this rank's share; the first rank puts all together, the others return nothing."""
        model, agree = module.model, module.execution.agree
        if self.lists is not None:
            found = score_reranked(model, self.task, self.lists, self.precision, agree)
        else:
            found = score_task(model, self.task, self.precision, agree)
        return _summed(found)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        known = super().state_dict() | {"best": self.best, "misses": self.misses}
        return known | ({} if self.min_gain is None else {"reference": self.reference})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best score so far, and the measurements since."""
        super().load_state_dict(state_dict)
        self.best, self.misses = state_dict["best"], int(state_dict.get("misses", 0))
        self.reference = state_dict.get("reference", [])


def _summed(found: PerQuery) -> tuple[dict[str, float], list[float]]:
    """Return the means, and the main score of each query."""
    return mean_scores(found), list(found.get(METRIC, {}).values())


def gains(each: list[float], reference: list[float], least: float | Literal["auto"]) -> bool:
    """Whether scores of queries are better than others by more than ``least``, or than half a standard error."""
    if not reference:
        return True
    differences = np.array(each) - np.array(reference)
    if least == "auto":
        least = standard_error(differences) / 2
    return bool(differences.mean() > least)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher of every validation in this process."""
    WATCHERS.append(watcher)
    try:
        yield
    finally:
        WATCHERS.remove(watcher)


def list_weights(folder: Path) -> list[Path]:
    """Return the weights that validation kept, oldest first."""
    return sorted(folder.glob("weights-*.ckpt"))


def is_patience_over(state: Mapping[str, Any], patience: int | None) -> bool:
    """Whether a validation with this state has ended its run."""
    return patience is not None and bool(state.get("misses", 0) >= patience)
