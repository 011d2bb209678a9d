"""The one thread that owns the models: takes batches from the queue and hands their results to the event loop."""

import logging
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from embedtrain.serving.queue import Job, Queue
from embedtrain.serving.served import Served

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """A batch that was computed: a result or an exception for each of its jobs."""

    jobs: list[Job]
    results: Sequence[Any]
    begun: float
    seconds: float


class Worker(threading.Thread):
    """Computes batches until the queue is closed.

    Args:
        queue: Where texts wait.
        models: Those that lanes count.
        loop: Gets the results, by ``deliver``.
        deliver: Called with each batch, in the loop.
    """

    def __init__(
        self,
        queue: Queue,
        models: Sequence[Served],
        loop: AbstractEventLoop,
        deliver: Callable[[Done], None],
    ) -> None:
        super().__init__(
            name="embedtrain-model", daemon=True
        )  # a stuck model ends with the process
        self._queue, self._models = queue, models
        self._loop, self._deliver = loop, deliver
        self.last_failed = False
        """Whether not one text of the last batch could be computed."""

    def run(self) -> None:
        """Compute batch after batch."""
        while (jobs := self._queue.take()) is not None:
            begun = monotonic()
            results = self._results(jobs)
            self.last_failed = all(isinstance(one, Exception) for one in results)
            done = Done(jobs, results, begun, monotonic() - begun)
            try:
                self._loop.call_soon_threadsafe(self._deliver, done)
            except RuntimeError:  # the loop has ended: nobody waits
                return

    def _results(self, jobs: Sequence[Job]) -> Sequence[Any]:
        """Compute all at once; where that fails each alone, so that only what is at fault fails."""
        try:
            return self._compute(jobs)
        except Exception as error:
            if len(jobs) == 1:
                logger.warning("a text could not be computed: %s", type(error).__name__)
                return [error]
        return [one for job in jobs for one in self._results([job])]

    def _compute(self, jobs: Sequence[Job]) -> Sequence[Any]:
        number, side = jobs[0].lane
        return self._models[number].compute(side, [job.prepared for job in jobs])
