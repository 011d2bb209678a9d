"""A language model behind an address as a writer: requests out, answers into the store."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedtrain.encoding.language.budget import Budget
from embedtrain.encoding.language.chat import (
    Failure,
    Reply,
    Request,
    as_completion,
    estimated_tokens,
)
from embedtrain.encoding.language.endpoint import ROUTES, Endpoint, Unanswered
from embedtrain.encoding.language.posting import Answer, Outcome, tells_usage, usage_of
from embedtrain.encoding.language.request_store import RequestStore
from embedtrain.encoding.language.settings import EndpointSettings
from embedtrain.progress import progress_bar
from embedtrain.redaction import redact

CONTEXT = 4096
"""Tokens that servers read at least, where nobody says more."""
POLL_SECONDS = 0.01


class EndpointChat:
    """A model that an OpenAI-compatible address serves.

    Args:
        url: The address; a path that ends in ``/completions`` alone is asked to go on with a text.
        settings: How it is used.
        context: Tokens of a prompt and its answer at most.
        budget: Where asking ends.

    Attributes:
        failures: Requests that brought no answer however often they were sent, by key.

    Raises:
        UserError: If the address cannot be used.
    """

    num_parameters: int | None = None

    def __init__(
        self, url: str, settings: EndpointSettings, *, context: int | None, budget: Budget
    ) -> None:
        self.endpoint = Endpoint(url, settings, route=ROUTES[0])
        self.name = self.endpoint.name
        self.context = context or CONTEXT
        self.budget = budget
        self.failures: dict[str, Failure] = {}
        self.identity = json.dumps([self.endpoint.base, self.name, self.endpoint.route])

    def size(self, text: str) -> int:
        """Return about how many tokens a text has."""
        return estimated_tokens(text)

    def answer(self, requests: Sequence[Request], store: RequestStore) -> str:
        """Put answers to all requests that the store has none for into it; return why it ended early, or nothing.

        Raises:
            UserError: If the server refuses several requests, or answers none of many, one after another.
        """
        missing = self._missing(requests, store)
        if not missing:
            return ""
        asked: list[_Asked] = []
        under_way: list[_Asked] = []
        reasons: list[str] = []

        def may_go_on(wait: float) -> bool:
            """Ask the budget again; nobody is waited for, who might wait too."""
            reason = self._over_budget([one for one in under_way if not one.ended], store, wait)
            reasons.extend([reason] if reason else [])
            return not reason

        def feed() -> Iterator[_Asked]:
            for key, request in missing:
                job = _Asked(key, request, store, self.endpoint.route, may_go_on)
                reason = "" if reasons else self._wait_for_budget(job, under_way, store)
                reasons.extend([reason] if reason else [])
                if reasons:
                    return
                under_way.append(job)
                asked.append(job)
                yield job

        with progress_bar(f"{self.name} writes", len(missing), unit="answers") as advance:
            for number, found in self.endpoint.stream(feed()):
                advance(1)
                if isinstance(found, Unanswered):
                    asked[number].ended = True
                    if not asked[number].was_stopped:
                        failure = Failure(found.reason, passing=not found.refused)
                        self.failures[asked[number].key] = failure
        return reasons[0] if reasons else ""

    def _wait_for_budget(
        self, job: "_Asked", under_way: "list[_Asked]", store: RequestStore
    ) -> str:
        """Return why a request may not be sent; waits while those under way may yet cost less than they might."""
        while True:
            under_way[:] = [one for one in under_way if not one.ended]
            reason = self._over_budget([*under_way, job], store)
            if not reason or not under_way:
                return reason
            time.sleep(POLL_SECONDS)

    def _over_budget(
        self, sending: "Sequence[_Asked]", store: RequestStore, wait: float = 0.0
    ) -> str:
        prompt, completion = (sum(one.most[side] for one in sending) for side in (0, 1))
        return self.budget.reason(store.bill(under_way=False), prompt, completion, wait)

    def _missing(
        self, requests: Sequence[Request], store: RequestStore
    ) -> list[tuple[str, Request]]:
        keyed = {request.key(self.identity): request for request in requests}
        return [(key, request) for key, request in keyed.items() if key not in store]


@dataclass
class _Asked:
    """A request under way."""

    key: str
    request: Request
    store: RequestStore
    route: str
    asks_budget: Callable[[float], bool]
    """Whether it may be sent again in so many seconds."""
    most: tuple[int, int] = field(init=False)
    """Tokens of the prompt, about, and of the answer at most."""
    ended: bool = False
    was_stopped: bool = False
    """Whether the budget kept it from being sent again."""
    _began: float = 0.0

    def __post_init__(self) -> None:
        prompt = sum(estimated_tokens(turn.content) for turn in self.request.turns)
        self.most = prompt, self.request.max_tokens

    @property
    def body(self) -> Mapping[str, object]:
        """What is sent; a field that would say nothing is left out, for not all servers know all."""
        request = self.request
        body: dict[str, object] = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        if request.temperature:
            body |= {"top_p": request.top_p, "seed": request.seed}
        if self.route != ROUTES[0]:
            stop = {"stop": ["\n"]} if request.one_line else {}
            return {**body, **stop, "prompt": as_completion(request.turns)}
        if request.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": json.loads(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        turns = [{"role": turn.role, "content": turn.content} for turn in request.turns]
        return {**body, "messages": turns}

    def begin(self) -> str:
        """Note that it is sent."""
        self._began = time.monotonic()
        return self.store.begin(self.key, *self.most)

    def fail(self, name: str, outcome: Outcome[Any]) -> None:
        """Note that nothing came; a refusal costs nothing, of what was cut nobody knows."""
        is_known = tells_usage(outcome.answer) or outcome.code
        self.store.fail(name, outcome.problem, usage_of(outcome.answer) if is_known else None)

    def may_go_on(self, wait: float) -> bool:
        """Ask the budget."""
        self.was_stopped = not self.asks_budget(wait)
        return not self.was_stopped

    def take(self, name: str, answer: Answer) -> None:
        """Keep the answer.

        Raises:
            ValueError: If it is none.
        """
        try:
            choice = answer["choices"][0]
            text = _text_of(choice)
            finish = choice.get("finish_reason") or "stop"
        except (LookupError, TypeError, AttributeError):
            raise ValueError(f"no answer: {redact(json.dumps(answer))[:80]}") from None
        prompt, completion = usage_of(answer) if tells_usage(answer) else (None, None)
        fingerprint = answer.get("system_fingerprint")
        reply = Reply(
            text, str(finish), prompt, completion,
            fingerprint=None if fingerprint is None else str(fingerprint),
            seconds=round(time.monotonic() - self._began, 3), tries=self.store.tries(self.key),
        )  # fmt: skip
        self.store.keep(self.key, reply, name)
        self.ended = True


def _text_of(choice: Any) -> str:  # noqa: ANN401 - it came from outside
    """Return what was written: a text, parts of it, or nothing, as where a model only thought."""
    content = choice["message"].get("content") if "message" in choice else choice["text"]
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str | None):
        raise TypeError(type(content).__name__)
    return content or ""
