"""How fast a run trains, what of that its device could do, and what it waits for.

The time between two lines of the log is measured, which is when the host reads values of the device anyway:
nothing here makes it wait. On a GPU the host runs ahead of the device in between, so a step's own time on the
host would say nothing.
"""

import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from embedtrain.models.text_model import TextModel
from embedtrain.training.callbacks import SPEED
from embedtrain.training.devices import product_type, this_device
from embedtrain.training.flops import StepWork, pretraining_counter, retrieval_counter
from embedtrain.training.module import RetrievalModule
from embedtrain.training.pretraining import PretrainModule
from embedtrain.training.ranks.processes import own_shard
from embedtrain.training.trained_module import TrainedModule

PAUSE_SECONDS = 0.02
"""Other callbacks that take longer have saved or measured something."""


class Speed(pl.Callback):
    """Measures a run between the lines of its log and adds what it finds to them.

    It must see the end of a step before the callbacks that save and measure, and ``after`` behind them: their time
    is not that of a step. Where the device works on while the host goes ahead, such a time cannot be told from
    that of the steps before, so a line behind a pause has no figures.

    Args:
        module: What trains; its weights must be whole still.
    """

    def __init__(self, module: TrainedModule) -> None:
        self.after = _End(self)
        self._count = step_counter(module)
        self._peak: float | None = None
        self._asynchronous = False
        self._work, self._steps = StepWork(), 0
        self._start = self._end = self._idle = 0.0
        self._waited = self._paused = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: TrainedModule) -> None:  # noqa: ARG002
        """Let the module's log ask for the figures."""
        device = module.device
        self._asynchronous = device.type == "cuda"
        known = this_device(device)
        if known is not None:
            self._peak = known.peak(product_type(module.config.precision))
        module.readings = self.read
        self._begin()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: TrainedModule, batch: object, number: int
    ) -> None:
        """Note how long the batch was waited for."""
        del trainer, module, batch, number
        self._waited += time.perf_counter() - self._idle

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: TrainedModule, _: object, batch: object, number: int
    ) -> None:
        """Count what a micro-batch took."""
        del trainer, module, number
        self._work += self._count(batch)
        self._steps += 1
        self._end = time.perf_counter()

    def resume(self) -> None:
        """Go on behind the other callbacks."""
        self._idle = time.perf_counter()
        if self._idle - self._end > PAUSE_SECONDS:
            self._paused += self._idle - self._end

    def read(self) -> dict[str, float]:
        """Return the figures since the last time, of all ranks where they add up, and begin anew."""
        now = time.perf_counter()
        seconds = now - self._start - self._paused
        work, untold = self._work, self._asynchronous and self._paused > 0
        waited, steps = self._waited, self._steps
        self._begin()
        if not steps or untold:
            return {}
        ranks = own_shard().ranks
        found: dict[str, float] = {
            "tokens_per_second": ranks * work.tokens / seconds,
            "texts_per_second": ranks * work.texts / seconds,
            "padding_ratio": work.padding_ratio,
            "data_wait_ratio": min(1.0, waited / seconds),
            "peak_memory_bytes": peak_memory(cuda=self._asynchronous),
        }
        if self._peak is not None and work.operations is not None:
            found["mfu"] = work.operations / seconds / self._peak
        return {SPEED + name: value for name, value in found.items()}

    def _begin(self) -> None:
        self._work, self._steps = StepWork(), 0
        self._waited = self._paused = 0.0
        self._start = self._idle = time.perf_counter()


class _End(pl.Callback):
    """Tells :class:`Speed` when the other callbacks are done."""

    def __init__(self, speed: Speed) -> None:
        self._speed = speed

    def on_train_batch_end(self, *_: object) -> None:
        """Go on."""
        self._speed.resume()


def step_counter(module: TrainedModule) -> Callable[[Any], StepWork]:
    """Return what counts the batches of a module."""
    if isinstance(module, RetrievalModule):
        retrieval, model = module, module.model
        assert isinstance(model, TextModel)
        count = retrieval_counter(
            model, num_ranks=module.config.num_ranks, only_queries=module.frozen is not None
        )

        def count_step(batch: Any) -> StepWork:  # noqa: ANN401 - Lightning's
            with retrieval.computing():  # whether texts are packed was decided for this precision
                return count(batch, retrieval.execution, retrieval.objective_of(batch))

        return count_step
    assert isinstance(module, PretrainModule)
    masking = module.objective.masking
    counts = pretraining_counter(module.model, masking.encoder_ratio, masking.decoder_ratio)

    def count_masked(batch: Any) -> StepWork:  # noqa: ANN401
        with module.computing():
            return counts(batch, module.execution)

    return count_masked


def peak_memory(*, cuda: bool) -> int:
    """Return the most bytes that this process held at once: of its GPU, or of the machine."""
    if cuda:
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe_speed(line: Mapping[str, float]) -> str:
    """Return what a line of the log says of speed, in words; empty where it says nothing."""
    known = {name.removeprefix(SPEED): one for name, one in line.items() if name.startswith(SPEED)}
    if not known:
        return ""
    shares = {"MFU": "mfu", "padding": "padding_ratio", "waiting for data": "data_wait_ratio"}
    told = (
        f"{word} {known[name]:.0%}" for word, name in shares.items() if known.get(name, 0) >= 0.01
    )
    return ", ".join([f"{known['tokens_per_second']:,.0f} tokens/s", *told])
