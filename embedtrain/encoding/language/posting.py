"""One request to an address, sent once: what came back, and whether it is worth another try.

The key comes from the environment and goes nowhere but into the header.
"""

import json
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import httpx

from embedtrain.encoding.language.pacing import asked_wait
from embedtrain.errors import UserError
from embedtrain.redaction import redact

KEY = "EMBEDTRAIN_API_KEY"
CONNECT_SECONDS = 10.0
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Codes of HTTP that pass."""
TOO_MANY = 429
DISLIKED = frozenset({400, 422})
"""Codes that may mean a field the server does not know."""
OPTIONAL = ("seed", "top_p", "response_format", "stop")
"""Fields that a request is understood without."""
RENAMED = {"max_tokens": "max_completion_tokens"}
UNKNOWN_FIELD = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|not supported|extra (inputs|fields)|unexpected|not permitted|not allowed",
    re.IGNORECASE,
)
NAME_HEADER = "X-Client-Request-Id"
Answer = dict[str, Any]
T = TypeVar("T", covariant=True)


@dataclass
class Outcome(Generic[T]):
    """What became of sending a request once."""

    problem: str = ""
    code: int = 0
    """Of HTTP; 0 where there was none, or all went well."""
    answer: Answer | None = None
    wait: float = 0.0
    """Seconds that the server asks for."""
    taken: list[T] = field(default_factory=list)
    """What was made of the answer, if it was one."""
    sent: frozenset[str] = frozenset()
    """Names of the fields."""

    @property
    def is_final(self) -> bool:
        """Whether the server will not have it, however often it is asked."""
        return bool(self.code) and self.code not in AGAIN


@runtime_checkable
class Job(Protocol[T]):
    """A request, and who keeps account of it."""

    @property
    def body(self) -> Mapping[str, object]:
        """What is sent, but for the model's name."""
        ...

    def begin(self) -> str:
        """Called right before each time it is sent; returns a name for it."""
        ...

    def fail(self, name: str, outcome: Outcome[Any]) -> None:
        """Called when nothing usable came back."""
        ...

    def may_go_on(self, wait: float) -> bool:
        """Whether it may be sent again in so many seconds."""
        ...

    def take(self, name: str, answer: Answer) -> T:
        """Return what is made of an answer.

        Raises:
            ValueError: If the answer is none: it is asked for again.
        """
        ...


@dataclass(frozen=True)
class Plain:
    """A request of which nobody keeps account; its answer is taken as it is."""

    body: Mapping[str, object]

    def begin(self) -> str:
        """Give it no name."""
        return ""

    def fail(self, name: str, outcome: Outcome[Any]) -> None:
        """Forget it."""

    def may_go_on(self, wait: float) -> bool:  # noqa: ARG002 - it costs nobody anything
        """Let it be sent again."""
        return True

    def take(self, name: str, answer: Answer) -> Answer:  # noqa: ARG002 - it has no name
        """Return the answer."""
        return answer


class Post:
    """Sends requests.

    Args:
        base: The address, without a route.
        seconds: Until a request is given up, from its beginning.

    Raises:
        UserError: If the key cannot be sent.
    """

    def __init__(self, base: str, seconds: float) -> None:
        self.base = base
        self._seconds = seconds
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        self._client = httpx.Client(headers=_with_key(), timeout=timeout)
        self._dropped: set[str] = set()
        self._lock = threading.Lock()

    def send(self, method: str, route: str, body: Mapping[str, object], job: Job[T]) -> Outcome[T]:
        """Send a job's request once; the job is told how it ended."""
        name = job.begin()
        found = self._exchange(method, route, self._known(body), name, Outcome[T]())
        if not found.problem and found.answer is not None:
            try:
                found.taken.append(job.take(name, found.answer))
            except ValueError as error:
                found.problem = str(error)
        if found.problem:
            found.problem = redact(found.problem)
            job.fail(name, found)
        return found

    def drop(self, found: Outcome[T]) -> bool:
        """Drop, for good, the fields that a refusal calls unknown; say whether the request had one."""
        if found.code not in DISLIKED or not UNKNOWN_FIELD.search(found.problem):
            return False
        renamed = [name for name, other in RENAMED.items() if other in found.problem]
        named = {
            name
            for name in (*OPTIONAL, *renamed)
            if name in found.sent and re.search(rf"\b{name}\b", found.problem)
        }
        with self._lock:
            self._dropped |= named
        return bool(named)

    def _exchange(
        self, method: str, route: str, body: dict[str, object], name: str, found: Outcome[T]
    ) -> Outcome[T]:
        found.sent = frozenset(body)
        sent = body if method == "POST" else None
        headers = {NAME_HEADER: name} if name else {}
        deadline = time.monotonic() + self._seconds
        pieces = []
        try:
            with self._client.stream(
                method, self.base + route, json=sent, headers=headers
            ) as answer:
                # A server that sends a byte now and then would never be late by the clock of a single one.
                for piece in answer.iter_bytes():
                    pieces.append(piece)
                    if time.monotonic() > deadline:
                        found.problem = "the answer did not end in time"
                        return found
        except httpx.HTTPError as error:
            found.problem = f"{type(error).__name__}: {error}"
            return found
        text = b"".join(pieces).decode(errors="replace")
        content = _object_in(text)
        found.answer = content
        if not answer.is_success:
            found.code, found.wait = answer.status_code, asked_wait(answer.headers)
            found.problem = f"HTTP {answer.status_code}: {redact(text)[:200]}"
        elif content is None:
            found.problem = f"no JSON object: {redact(text)[:80]}"
        return found

    def _known(self, body: Mapping[str, object]) -> dict[str, object]:
        """Return a body without the fields that the server does not know."""
        with self._lock:
            dropped = set(self._dropped)
        known = {name: value for name, value in body.items() if name not in dropped}
        others = {RENAMED[name]: body[name] for name in dropped & {*RENAMED} & {*body}}
        return known | others


def tells_usage(answer: Answer | None) -> bool:
    """Whether a server says what an answer has cost."""
    return isinstance((answer or {}).get("usage"), dict)


def usage_of(answer: Answer | None) -> tuple[int, int]:
    """Return the tokens of prompt and completion that a server says it has counted; 0 where it does not."""
    usage = answer["usage"] if answer is not None and tells_usage(answer) else {}
    both = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (one if isinstance(one, int) and one > 0 else 0 for one in both)
    return prompt, completion


def _object_in(text: str) -> Answer | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _with_key() -> dict[str, str]:
    """Return the header that holds the key; files and pipes leave a newline behind it, which no header may hold."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        cure = "Set it again, without quotes and line breaks"
        raise UserError(KEY, "holds characters that cannot be sent", cure=cure)
    return {"Authorization": f"Bearer {key}"} if key else {}
