"""Where requests become results: models by name, tokenisation in a thread, the queue, and what is held meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from embedtrain.errors import UserError
from embedtrain.serving.metrics import Metrics
from embedtrain.serving.queue import Ask, Prepared, Queue
from embedtrain.serving.refusals import Refusal
from embedtrain.serving.served import ServedCrossEncoder, ServedEncoder
from embedtrain.serving.settings import ServeSettings
from embedtrain.serving.worker import Done, Worker
from embedtrain.types import Side

T = TypeVar("T")
TOKENIZED = 128
"""Texts tokenised at once."""
ROUTES = {
    "dense": "/v1/embeddings",
    "late_interaction": "/embed_all",
    "sparse": "/embed_sparse",
    "cross_encoder": "/rerank",
}
"""Where each kind of model is asked."""
FIRST_RATE = 2_000.0
"""Tokens a second, until a batch has been measured."""


@dataclass(frozen=True)
class Computed:
    """The results of a request's texts, in their order."""

    results: list[Any]
    tokens: int


class Desk:
    """Takes the texts of requests and returns what models make of them. Lives in one event loop.

    Args:
        models: The first is taken where a request names none.
        settings: Limits.
        metrics: Counts.

    Raises:
        UserError: If two models have one name.
    """

    def __init__(
        self,
        models: Sequence[ServedEncoder | ServedCrossEncoder],
        settings: ServeSettings,
        metrics: Metrics,
    ) -> None:
        self.models, self.settings, self.metrics = list(models), settings, metrics
        self.by_name = {one.name: number for number, one in enumerate(models)}
        if len(self.by_name) < len(models):
            names = ", ".join(one.name for one in models)
            raise UserError(
                "--name", "would be that of two models", got=names, cure="Give each one its own"
            )
        self.queue = Queue(settings.batch_tokens, settings.wait_seconds)
        self.threads = ThreadPoolExecutor(1, thread_name_prefix="embedtrain-tokenizer")
        """One thread: a tokenizer's settings are changed by each call."""
        self.is_stopping = False
        """Whether the guard is to let no new request in."""
        self._is_closed = False
        self._num_aside = 0
        self._asks: set[Ask] = set()
        self._rate = FIRST_RATE
        self._worker: Worker | None = None

    def begin(self) -> None:
        """Let the thread of the models start; called in the event loop."""
        loop = asyncio.get_running_loop()
        self._worker = Worker(self.queue, self.models, loop, self._deliver)
        self._worker.start()

    @property
    def is_well(self) -> bool:
        """Whether the models answer."""
        return self._worker is not None and self._worker.is_alive() and not self._worker.last_failed

    def find(self, name: str | None) -> tuple[int, ServedEncoder | ServedCrossEncoder]:
        """Return the number of a model and the model.

        Raises:
            Refusal: If there is none of this name.
        """
        number = self.by_name.get(name, -1) if name else 0
        if number < 0:
            known = ", ".join(self.by_name)
            raise Refusal("unknown", f"there is no such model; there is: {known}", param="model")
        return number, self.models[number]

    def encoder(self, name: str | None, *, kind: str | None = None) -> tuple[int, ServedEncoder]:
        """Return a model of vectors.

        Raises:
            Refusal: If the model of this name makes none, or not of this kind.
        """
        number, model = self.find(name)
        if not isinstance(model, ServedEncoder) or (kind is not None and model.kind != kind):
            problem = (
                f"this route is not for a model of the kind {model.kind}; {ROUTES[model.kind]} is"
            )
            raise Refusal("validation", problem, param="model")
        return number, model

    async def encode(
        self,
        number: int,
        texts: Sequence[str] | Sequence[Sequence[int]],
        side: Side,
        *,
        instruction: str | None = None,
        truncate: bool = True,
    ) -> Computed:
        """Return the vectors of texts; token ids count as they are.

        Raises:
            Refusal: If a text cannot be encoded, or too much waits.
        """
        model = self.models[number]
        assert isinstance(model, ServedEncoder)
        prepare = partial(model.prepare, side=side, instruction=instruction, truncate=truncate)
        prepared: list[Prepared] = []
        for start in range(0, len(texts), TOKENIZED):  # between them others have their turn
            part = texts[start : start + TOKENIZED]
            prepared += await self._prepared(partial(prepare, part))
        return await self._compute(number, side, prepared)

    async def score(
        self, number: int, query: str, documents: Sequence[str], *, truncate: bool = True
    ) -> Computed:
        """Return the scores that a cross-encoder gives a query with documents.

        Raises:
            Refusal: If a text cannot be read, or too much waits.
        """
        model = self.models[number]
        assert isinstance(model, ServedCrossEncoder)
        prepared = await self._prepared(
            partial(model.prepare_pairs, query, documents, truncate=truncate)
        )
        return await self._compute(number, "pair", prepared)

    async def aside(self, work: Callable[[], T]) -> T:
        """Do what would hold up the event loop, and needs no model, in the thread of the tokenizer."""
        self._num_aside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, work)
        finally:
            self._num_aside -= 1

    async def finish(self) -> None:
        """Wait for what is under way, as long as settings say; then refuse what is left, and end the threads."""
        self.is_stopping = True
        deadline = monotonic() + self.settings.grace_seconds
        while (self._asks or self._num_aside) and monotonic() < deadline:
            await asyncio.sleep(0.02)
        self._is_closed = True
        for ask in list(self._asks):
            self.queue.drop(ask)
            if not ask.future.done():
                ask.future.set_exception(Refusal("unhealthy", "the server is stopping"))
        self.queue.close()
        self.threads.shutdown(wait=False)

    async def _prepared(self, work: Callable[[], tuple[list[Prepared], int]]) -> list[Prepared]:
        begun = monotonic()
        texts, cut = await self.aside(work)
        self.metrics.tokenized.observe(monotonic() - begun)
        self.metrics.truncated.add(by=cut)
        return texts

    async def _compute(self, number: int, side: str, texts: list[Prepared]) -> Computed:
        tokens = sum(len(text.ids) for text in texts)
        self._admit(tokens)
        self.metrics.texts.add(side, by=len(texts))
        self.metrics.tokens.add(by=tokens)
        future = asyncio.get_running_loop().create_future()
        ask = Ask((number, side), future, len(texts), [None] * len(texts))
        self._asks.add(ask)
        self.queue.put(ask, texts)
        try:
            await future
        finally:
            self._asks.discard(ask)
            if not future.done() or future.cancelled() or future.exception():
                self.queue.drop(ask)
        if ask.started is not None:
            self.metrics.queued.observe(ask.started - ask.arrived)
        return Computed(ask.results, tokens)

    def _admit(self, tokens: int) -> None:
        settings = self.settings
        if tokens > settings.max_request_tokens:
            problem = f"all texts have more than {settings.max_request_tokens} tokens"
            raise Refusal("too_large", problem, param="input")
        if self._is_closed:
            raise Refusal("unhealthy", "the server is stopping")
        waiting = self.queue.tokens
        if waiting and waiting + tokens > settings.queue_tokens:
            wait = waiting / self._rate
            raise Refusal("overloaded", "too much waits; try again later", retry_seconds=wait)

    def _deliver(self, done: Done) -> None:
        """Give the results of a batch to those who wait; in the event loop."""
        tokens = sum(job.size for job in done.jobs)
        self.metrics.batch.observe(tokens)
        self.metrics.encoded.observe(done.seconds)
        self.metrics.computed.add(by=tokens)
        self._rate += 0.2 * (tokens / max(done.seconds, 1e-6) - self._rate)
        for job, result in zip(done.jobs, done.results, strict=True):
            self.queue.forget(job)
            for ask, place in job.asked:
                if ask.future.done():
                    continue
                if isinstance(result, Exception):
                    ask.future.set_exception(Refusal("backend", "the model could not compute it"))
                    continue
                ask.results[place] = result
                ask.left -= 1
                if not ask.left:
                    ask.future.set_result(None)
