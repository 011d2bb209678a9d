"""A language model behind an OpenAI-compatible address: requests with patience, a rate limit and a bill."""

import queue
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import httpx

from embedtrain.encoding.language.pacing import Throttle
from embedtrain.encoding.language.posting import (
    KEY,
    TOO_MANY,
    Answer,
    Job,
    Outcome,
    Plain,
    Post,
    usage_of,
)
from embedtrain.encoding.language.settings import EndpointSettings
from embedtrain.errors import UserError
from embedtrain.progress import console
from embedtrain.redaction import redact

TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds; the wait doubles after each try."""
REFUSALS = 3
"""Requests refused one after another that end the work."""
FAILURES = 10
"""Requests without an answer, for whatever reason, that do so: the server is dead."""
SECONDS_TO_END = 10.0
"""For requests that are under way when the work is stopped."""
ROUTES = ("/chat/completions", "/completions")
MODELS = "/models"
CURES = {
    ("", 401): f"Set {KEY} to a key that is valid there: the same command goes on where it was",
    ("", 403): f"Set {KEY} to a key that may do this: the same command goes on where it was",
    (
        MODELS,
        404,
    ): "Add #NAME of the model behind the address, which must end with /v1 on most servers",
}
"""What is to be done before the same command is started again, by route (any if empty) and code of HTTP."""
T = TypeVar("T")


class Unanswered(UserError):  # noqa: N818 - reads as what happened
    """A request that the server refuses, or that fails however often it is tried.

    Attributes:
        refused: Whether the server will not have it, however often it is asked.
        reason: What the last try told.
    """

    refused = False
    reason = ""


class Endpoint:
    """An address that completes texts.

    Args:
        url: Up to ``/v1``, or with one of the two routes; the name of a model may follow behind ``#``.
        settings: How it is used.
        route: Where requests go if the address does not say.

    Raises:
        UserError: If the address is none, holds a password or a query part, or cannot be reached, or the key cannot be
            sent.
    """

    def __init__(self, url: str, settings: EndpointSettings, *, route: str) -> None:
        refuse_query(url)
        if "@" in url.partition("://")[2].partition("/")[0] or redact(url) != url:
            raise UserError(redact(url), "holds a password", cure=f"Give the key in {KEY}")
        refuse_malformed(url)
        url, _, name = url.partition("#")
        address = url.rstrip("/")
        said = next((one for one in ROUTES if address.endswith(one)), None)
        self.base = address.removesuffix(said or "")
        self.route = said or route
        self.settings = settings
        self.requests = self.retries = self.prompt_tokens = self.completion_tokens = 0
        self.throttle = Throttle(settings.concurrency, settings.requests_per_minute)
        self._refused = self._failed = 0
        self._lock = threading.Lock()
        self._post = Post(self.base, settings.timeout_seconds)
        self.name = settings.served_name or name or self._first_model()

    def ask(self, bodies: Sequence[Mapping[str, object]]) -> list[Answer]:
        """Post requests, some at once; answers come in the order of the requests.

        Raises:
            UserError: If one is refused, or fails however often it is tried.
        """
        found: dict[int, Answer] = {}
        for number, answer in self.stream(map(Plain, bodies)):
            if isinstance(answer, Unanswered):
                raise answer
            found[number] = answer
        return [found[number] for number in range(len(bodies))]

    def stream(self, jobs: Iterable[Job[T]]) -> Iterator[tuple[int, T | Unanswered]]:
        """Post requests, some at once; yield the number of each, and what was made of it, as they end.

        Jobs are taken from the iterable by several threads, one after another, right before each is sent.

        Raises:
            UserError: If several are refused, or many fail, one after another.
        """
        feed, feeding, stopped = enumerate(jobs), threading.Lock(), threading.Event()
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def work() -> None:
            last: object = None
            try:
                while not stopped.is_set():
                    with feeding:
                        number, job = next(feed, (-1, None))
                    if job is None:
                        break
                    found = self._answer(job, stopped)
                    if self._is_last(found):
                        stopped.set()
                        last = found
                        break
                    ended.put((number, found))
            except BaseException as error:
                last = error
            ended.put(last)

        # Daemons: a server that never answers must not hold up the end of the process.
        for _ in range(self.settings.concurrency):
            threading.Thread(target=work, daemon=True).start()
        try:
            yield from self._as_they_end(ended)
        finally:
            stopped.set()
            deadline = time.monotonic() + SECONDS_TO_END
            while self.throttle.under_way and time.monotonic() < deadline:
                time.sleep(0.01)

    def spent(self) -> dict[str, object]:
        """Return what was asked so far, and what it cost where a price is known."""
        found: dict[str, object] = {
            "requests": self.requests, "retries": self.retries,
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
        }  # fmt: skip
        cost = self.settings.cost(self.prompt_tokens, self.completion_tokens)
        return found if cost is None else {**found, "cost": round(cost, 6)}

    def _as_they_end(self, ended: "queue.SimpleQueue[Any]") -> Iterator[tuple[int, Any]]:
        working = self.settings.concurrency
        while working:
            one = self._next(ended)
            if one is None:
                working -= 1
            elif isinstance(one, BaseException):
                raise one
            else:
                yield one

    def _is_last(self, found: object) -> bool:
        """Count refusals and failures that follow one another; whether they are enough to end the work."""
        with self._lock:
            has_failed = isinstance(found, Unanswered)
            is_refused = isinstance(found, Unanswered) and found.refused
            self._refused = self._refused + 1 if is_refused else 0
            self._failed = self._failed + 1 if has_failed else 0
            return self._refused >= REFUSALS or self._failed >= FAILURES

    def _next(self, ended: "queue.SimpleQueue[Any]") -> Any:  # noqa: ANN401 - of any job
        """Return what ends next; say so when nothing does for long."""
        seconds = self.settings.timeout_seconds
        while True:
            try:
                return ended.get(timeout=seconds)
            except queue.Empty:
                under_way = f"{self.throttle.under_way} requests under way"
                console.print(f"{self.base}: no answer for {seconds:g} s, {under_way}")

    def _answer(self, job: Job[T], stopped: threading.Event) -> T | Unanswered:
        try:
            return self._patiently("POST", self.route, job, stopped)
        except Unanswered as error:
            return error

    def _first_model(self) -> str:
        found = self._patiently("GET", MODELS, Plain({}), threading.Event()).get("data")
        try:
            return str(found[0]["id"])  # type: ignore[index]
        except (TypeError, LookupError):
            raise UserError(
                self.base,
                "does not list its models",
                got=found,
                cure="Add #NAME of the model behind the address",
            ) from None

    def _patiently(self, method: str, route: str, job: Job[T], stopped: threading.Event) -> T:
        """Send a request until it is answered; what will not pass ends it at once."""
        wait, tried = FIRST_WAIT, 0
        while True:
            found = self._try(method, route, job)
            if found.taken:
                return found.taken[0]
            if self._post.drop(found):
                continue
            tried += 1
            if found.is_final or tried == TRIES or stopped.is_set():
                break
            pause = max(found.wait, wait * random.uniform(0.5, 1))
            if not job.may_go_on(pause):
                break
            with self._lock:
                self.retries += 1
            time.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT)
        again = "Start the same command again: it goes on where it was"
        cure = CURES.get((route, found.code), CURES.get(("", found.code), again))
        error = Unanswered(self.base + route, "does not answer", got=found.problem, cure=cure)
        error.refused, error.reason = found.is_final, found.problem
        raise error

    def _try(self, method: str, route: str, job: Job[T]) -> Outcome[T]:
        """Send a request once, and count it."""
        with self.throttle.turn() as went_at:
            found = self._post.send(
                method, route, {"model": self.name, **job.body} if method == "POST" else {}, job
            )
            if found.code == TOO_MANY:
                self.throttle.brake(found.wait, went_at)
        if method == "POST":
            prompt, completion = usage_of(found.answer)
            with self._lock:
                self.requests += bool(found.taken)
                self.prompt_tokens += prompt
                self.completion_tokens += completion
        if found.taken:
            self.throttle.went_well()
        return found


def is_endpoint(path: str) -> bool:
    """Whether a model is an address."""
    return path.startswith(("http://", "https://"))


def refuse_query(url: str) -> None:
    """Refuse an address with a query part, which often holds a key, and behind which no route can stand.

    Raises:
        UserError: If it has one.
    """
    address, mark, _ = url.partition("#")[0].partition("?")
    if mark:
        cure = f"Leave out what begins with the question mark; a key goes into {KEY}"
        raise UserError(redact(address), "has a query part behind it", cure=cure)


def refuse_malformed(url: str) -> None:
    """Refuse what no request can be sent to.

    Raises:
        UserError: If it is so.
    """
    try:
        problem = "" if httpx.URL(url).host else "no host"
    except httpx.InvalidURL as error:
        problem = str(error)
    if problem:
        cure = "Write it as http://HOST:PORT/v1"
        raise UserError(redact(url), "is no address", got=problem, cure=cure)
