"""A language model behind an OpenAI-compatible address: requests with patience, a rate limit and a bill.

The key comes from the environment and goes nowhere but into the header.
"""

import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from embedtrain.encoding.language.settings import EndpointSettings
from embedtrain.errors import UserError
from embedtrain.redaction import redact

KEY = "EMBEDTRAIN_API_KEY"
TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds; the wait doubles after each try."""
TIMEOUT_SECONDS = 120.0
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Codes of HTTP that pass."""
ROUTES = ("/chat/completions", "/completions")
Answer = dict[str, Any]


class Endpoint:
    """An address that completes texts.

    Args:
        url: Up to ``/v1``, or with one of the two routes.
        settings: How it is used.
        route: Where requests go if the address does not say.

    Raises:
        UserError: If the address is none, holds a password, or cannot be reached, or the key cannot be sent.
    """

    def __init__(self, url: str, settings: EndpointSettings, *, route: str) -> None:
        if "@" in url.partition("://")[2].partition("/")[0]:
            raise UserError(redact(url), "holds a password", cure=f"Give the key in {KEY}")
        refuse_malformed(url)
        address = url.rstrip("/")
        said = next((one for one in ROUTES if address.endswith(one)), None)
        self.base = address.removesuffix(said or "")
        self.route = said or route
        self.settings = settings
        self.requests = self.retries = self.prompt_tokens = self.completion_tokens = 0
        self._lock = threading.Lock()
        self._next = 0.0
        self._client = httpx.Client(headers=_with_key(), timeout=TIMEOUT_SECONDS)
        self.name = settings.served_name or self._first_model()

    def ask(self, bodies: Sequence[Mapping[str, object]]) -> list[Answer]:
        """Post requests, some at once; answers come in the order of the requests.

        Raises:
            UserError: If one is refused, or fails however often it is tried.
        """
        pool = ThreadPoolExecutor(self.settings.concurrency)
        try:
            return list(pool.map(self._post, bodies))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def spent(self) -> dict[str, object]:
        """Return what was asked so far, and what it cost where a price is known."""
        found: dict[str, object] = {
            "requests": self.requests, "retries": self.retries,
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
        }  # fmt: skip
        if self.settings.price is not None:
            tokens = self.prompt_tokens + self.completion_tokens
            found["cost"] = round(tokens / 1e6 * self.settings.price, 6)
        return found

    def _post(self, body: Mapping[str, object]) -> Answer:
        content = self._patiently("POST", self.route, {"model": self.name, **body})
        usage = content.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        with self._lock:
            self.requests += 1
            self.prompt_tokens += int(usage.get("prompt_tokens") or 0)
            self.completion_tokens += int(usage.get("completion_tokens") or 0)
        return content

    def _first_model(self) -> str:
        found = self._patiently("GET", "/models", None).get("data")
        try:
            return str(found[0]["id"])  # type: ignore[index]
        except (TypeError, LookupError):
            raise UserError(
                self.base, "does not list its models", got=found, cure="Give --served-name"
            ) from None

    def _patiently(self, method: str, route: str, body: object) -> Answer:
        """Send a request until it is answered; what will not pass ends it at once."""
        wait, problem = FIRST_WAIT, ""
        for number in range(TRIES):
            if number:
                with self._lock:
                    self.retries += 1
                time.sleep(wait * random.uniform(0.5, 1))
                wait = min(2 * wait, LONGEST_WAIT)
            self._take_turn()
            try:
                answer = self._client.request(method, self.base + route, json=body)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if answer.is_success:
                try:
                    content = answer.json()
                except ValueError:
                    content = None
                if isinstance(content, dict):
                    return content
                problem = f"no JSON object: {answer.text[:80]}"
                continue
            problem = f"HTTP {answer.status_code}: {answer.text[:200]}"
            if answer.status_code not in AGAIN:
                break
            wait = max(wait, _asked_for(answer))
        cure = "Start the same command again: it goes on where it was"
        raise UserError(self.base + route, "does not answer", got=redact(problem), cure=cure)

    def _take_turn(self) -> None:
        """Wait until the rate limit lets another request go."""
        if self.settings.requests_per_minute is None:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + 60 / self.settings.requests_per_minute
        time.sleep(max(0.0, turn - time.monotonic()))


def is_endpoint(path: str) -> bool:
    """Whether a model is an address."""
    return path.startswith(("http://", "https://"))


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


def _with_key() -> dict[str, str]:
    """Return the header that holds the key; files and pipes leave a newline behind it, which no header may hold."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        cure = "Set it again, without quotes and line breaks"
        raise UserError(KEY, "holds characters that cannot be sent", cure=cure)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _asked_for(answer: httpx.Response) -> float:
    """Return the seconds that a server asks to wait, within reason."""
    try:
        return min(float(answer.headers.get("Retry-After", 0)), LONGEST_WAIT)
    except ValueError:  # a date: the ordinary wait does
        return 0.0
