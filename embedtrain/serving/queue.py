"""Texts that wait to be computed, and which of them go together.

Requests are lists of texts. A batch takes a text of each waiting request in turn until its tokens are enough, so that
one query is not held up by two thousand documents that came before it. The request that was served longest ago
is always in it: none starves. A text that several requests want is computed once.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from jaxtyping import Int32

Lane = tuple[int, str]
"""What can be computed together: the number of a model and a side of it."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The token ids of a text, or of a pair of texts whose second begins at ``second``."""

    ids: Int32[np.ndarray, " tokens"]
    second: int | None = None


@dataclass(eq=False, slots=True)
class Job:
    """One distinct text, computed once for all who ask."""

    key: tuple[Lane, bytes, int | None]
    prepared: Prepared
    asked: list[tuple["Ask", int]]
    """Who wants the result, and as which of its texts. Changed by the event loop only."""
    is_taken: bool = False

    @property
    def lane(self) -> Lane:
        """With what it can be computed."""
        return self.key[0]

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.prepared.ids)


@dataclass(eq=False)
class Ask:
    """The texts of one request, on one lane."""

    lane: Lane
    future: Any
    """An ``asyncio.Future`` that is done when all results are there."""
    left: int
    """Results that are missing."""
    results: list[Any]
    arrived: float = field(default_factory=monotonic)
    started: float | None = None
    """When the first of its texts was taken."""
    jobs: deque[Job] = field(default_factory=deque)
    """Those that are not computed yet; others may take them first."""


class Queue:
    """What the event loop puts in and the thread that computes takes out.

    Args:
        budget: Tokens of a batch; a longer text is a batch of its own.
        wait_seconds: How long an idle taker waits for company.
    """

    def __init__(self, budget: int, wait_seconds: float) -> None:
        self._budget, self._wait = budget, wait_seconds
        self._asks: deque[Ask] = deque()
        self._known: dict[tuple[Lane, bytes, int | None], Job] = {}
        self._changed = threading.Condition()
        self._closed = False
        self.tokens = 0
        """Tokens that wait."""

    def put(self, ask: Ask, texts: Sequence[Prepared]) -> None:
        """Let texts wait; those that wait or are being computed already are joined."""
        with self._changed:
            for place, text in enumerate(texts):
                key = (ask.lane, text.ids.tobytes(), text.second)
                job = self._known.get(key)
                if job is None:
                    job = self._known[key] = Job(key, text, [])
                    self.tokens += job.size
                job.asked.append((ask, place))
                ask.jobs.append(job)
            self._asks.append(ask)
            self._changed.notify()

    def drop(self, ask: Ask) -> None:
        """Forget a request: its texts that nobody else wants are not computed, unless that has begun."""
        with self._changed:
            for job in ask.jobs:
                job.asked = [one for one in job.asked if one[0] is not ask]
                if not job.asked and not job.is_taken:
                    self._take(job)
                    del self._known[job.key]
            ask.jobs.clear()

    def forget(self, job: Job) -> None:
        """Let the same text be computed again: this result is there."""
        with self._changed:
            self._known.pop(job.key, None)

    def take(self) -> list[Job] | None:
        """Wait for texts and return those of the next batch, all of one lane; None once the queue is closed."""
        with self._changed:
            while not (batch := self._next_batch()):
                if self._closed:
                    return None
                self._changed.wait()
                if self._wait and not self._is_much():
                    self._changed.wait_for(self._is_much, self._wait)
            return batch

    def close(self) -> None:
        """Let the taker end when nothing waits."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _is_much(self) -> bool:
        return self._closed or 4 * self.tokens >= self._budget

    def _take(self, job: Job) -> None:
        job.is_taken = True
        self.tokens -= job.size

    def _next_batch(self) -> list[Job]:
        """Take a text of each request on the first one's lane in turn; those that were served go to the end."""
        batch: list[Job] = []
        tokens, full, now = 0, False, monotonic()
        while not full:
            served: list[Ask] = []
            passed: deque[Ask] = deque()
            while self._asks and not full:
                ask = self._asks.popleft()
                job = self._first_waiting(ask)
                if job is None:
                    continue
                if batch and job.lane != batch[0].lane:
                    passed.append(ask)
                elif batch and tokens + job.size > self._budget:
                    passed.append(ask)
                    full = True
                else:
                    self._take(job)
                    ask.started = ask.started or now
                    batch.append(job)
                    tokens += job.size
                    served.append(ask)
            self._asks.extendleft(reversed(passed))
            self._asks.extend(served)
            full = full or not served
        return batch

    @staticmethod
    def _first_waiting(ask: Ask) -> Job | None:
        """Drop what others had computed from the front of a request; return what is then its first text."""
        while ask.jobs and ask.jobs[0].is_taken:
            ask.jobs.popleft()
        return ask.jobs[0] if ask.jobs else None
