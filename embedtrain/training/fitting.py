"""Run the steps of a training run: the one place that starts Lightning's loop."""

import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from embedtrain.data.mixture import Cut
from embedtrain.errors import Interrupted
from embedtrain.stopping import AGAIN, deferring, listening, tell
from embedtrain.training.ahead import built_ahead, num_workers
from embedtrain.training.callbacks import Checkpoints, CleanStop, CsvLog, WallLimit
from embedtrain.training.datamodule import BatchStream, StreamData
from embedtrain.training.precision import products_of
from embedtrain.training.progress import StepProgress
from embedtrain.training.ranks.processes import own_shard
from embedtrain.training.settings import TrainerConfig
from embedtrain.training.speed import Speed
from embedtrain.training.trained_module import TrainedModule
from embedtrain.training.trainer import build_trainer


@dataclass(frozen=True)
class Start:
    """Where training begins: at step 0, or behind a checkpoint."""

    step: int = 0
    checkpoint: Path | None = None
    is_over: bool = False
    """Whether patience or the clock ended the run there."""
    out_of_time: bool = False
    """Whether it was the clock."""


@dataclass(frozen=True)
class Places:
    """Where a run keeps what training writes."""

    run: Path
    metrics: Path
    checkpoints: Path

    @property
    def speed(self) -> Path:
        """Where the speed at each line of the log stands; unlike the metrics, no run repeats it."""
        return self.run / "speed.csv"


def fit(
    module: TrainedModule,
    stream: BatchStream[Any],
    config: TrainerConfig,
    *,
    start: Start,
    places: Places,
    callbacks: Sequence[pl.Callback] = (),
) -> Start:
    """Run the steps of ``stream`` and save checkpoints; return where a run would go on.

    ``stream`` goes from ``start`` to the last step; callbacks run before the checkpoint of a step is
    saved.

    Raises:
        Interrupted: If a signal stopped it; a checkpoint is there.
    """
    # Longer than 40 lines for its arguments' sake; it is one thing from beginning to end.
    num_steps = stream.stop
    stop = CleanStop()
    limit = WallLimit(math.inf if config.max_seconds is None else config.max_seconds)
    speed, checkpoints = Speed(module), Checkpoints(places.checkpoints, config.checkpoint_every)
    with (
        _quiet_lightning(),
        listening(),
        deferring(_announcement()),
        products_of(config),
        built_ahead(stream, num_workers(config, stream), config.prefetch) as fed,
    ):
        trainer = build_trainer(
            config,
            num_steps,
            folder=places.run,
            csv_logs=[
                CsvLog(places.metrics, start.step),
                CsvLog(places.speed, start.step, speed=True),
            ],
            callbacks=[stop, limit, speed, *callbacks, checkpoints, speed.after, StepProgress()],
        )
        if start.checkpoint is not None:  # before a strategy shards the weights
            state = torch.load(start.checkpoint, map_location="cpu", weights_only=True)
            module.load_state_dict(state["state_dict"])
        module.train()  # loading leaves it in evaluation mode, where dropout is off
        trainer.fit(module, StreamData(fed), ckpt_path=start.checkpoint, weights_only=True)
        stop.agree()  # a signal may have come during the last step
        if stop.number:
            raise Interrupted(
                f"stopped at step {trainer.global_step} of {num_steps} by "
                f"{signal.Signals(stop.number).name}",
                stop.number,
                how_to_go_on(places.run),
            )
        return Start(trainer.global_step, out_of_time=limit.reached)


def how_to_go_on(run: Path) -> str:
    """Say how to go on with a run that has stopped."""
    return f"continue with: embedtrain train --resume {run}"


def _announcement() -> Callable[[int], None]:
    """Return what says that a signal was heard."""
    is_first = own_shard().is_first

    def say(_: int) -> None:
        if is_first:
            tell("stopping after this step" + AGAIN)

    return say


def own_cut(config: TrainerConfig) -> Cut:
    """Return which part of each step this rank trains on."""
    shard = own_shard()
    return Cut(config.accumulate, shard.rank, shard.ranks)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice about things decided on purpose out of the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Where workers are worth it they are our own, not the loader's.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # Lightning 2.6 builds a pytree LeafSpec the way torch 2.13 deprecates.
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        # DeepSpeed runs the backward pass itself, so ours, which can be done again, is not called.
        warnings.filterwarnings("ignore", ".*backward.* hook but it will be ignored.*")
        try:
            yield
        finally:
            for log, level in zip(loggers, levels, strict=True):
                log.setLevel(level)
