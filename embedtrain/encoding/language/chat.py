"""What a language model is asked to write, what it wrote, and by which name the answer is known again."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from embedtrain.encoding.language.request_store import RequestStore

Role = Literal["system", "user", "assistant"]
BYTES_PER_TOKEN = 3.6
"""Of UTF-8, where nobody knows the tokenizer."""
LEAD = "Query:"
"""Begins what a model without a chat template is to write."""


@dataclass(frozen=True)
class Turn:
    """A turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Request:
    """What is asked, and how the answer is drawn. Everything here can change it, so all of it is in its key."""

    turns: tuple[Turn, ...]
    temperature: float = 0.0
    """0 takes the likeliest token at each place."""
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = 64
    one_line: bool = True
    """Whether the answer ends with its first line that is not empty."""
    schema: str | None = None
    """JSON schema of the answer, as JSON."""
    attempt: int = 0
    """How often the same was asked before and the answer could not be used."""

    def key(self, model: str) -> str:
        """Return the name of the answer of a model, which its identity stands for."""
        content = json.dumps({"model": model, **asdict(self)}, ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    Attributes:
        text: As it came.
        finish: ``stop``, ``length`` where it was cut, ``failed`` where none came, or the server's own word.
        prompt_tokens: That were read, as the server counts them; None where it does not say.
        completion_tokens: That were written.
        log_probability: Mean over the tokens written, in nats, where it is known.
        fingerprint: What the server says of itself.
        seconds: From sending to the answer.
        tries: How often it was sent.
    """

    text: str
    finish: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    log_probability: float | None = None
    fingerprint: str | None = None
    seconds: float = 0.0
    tries: int = 1


@dataclass(frozen=True)
class Failure:
    """Why a request brought no answer.

    Attributes:
        reason: As the last try told it.
        passing: Whether it may go well another time; a refusal will not.
    """

    reason: str
    passing: bool


@runtime_checkable
class ChatModel(Protocol):
    """A model that answers requests."""

    name: str
    """As reports call it."""
    identity: str
    """Whatever changes an answer changes it."""
    context: int
    """Tokens of a prompt and its answer at most."""
    num_parameters: int | None
    """None where nobody knows."""
    failures: dict[str, Failure]
    """Requests that brought no answer however often they were sent, by key."""

    def size(self, text: str) -> int:
        """Return how many tokens a text has, or about how many."""
        ...

    def answer(self, requests: Sequence[Request], store: "RequestStore") -> str:
        """Put answers to all requests that the store has none for into it.

        Returns why it ended before all were asked, such as a budget; empty if all were.
        """
        ...


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has."""
    return math.ceil(len(text.encode(errors="surrogatepass")) / BYTES_PER_TOKEN)


def as_completion(turns: Sequence[Turn]) -> str:
    """Return a conversation as a text to be gone on with, for models that know no turns."""
    parts = []
    for turn in turns:
        if turn.role == "user":
            parts.append(f"{turn.content}\n{LEAD}")
        else:
            parts.append(
                f" {turn.content}\n\n" if turn.role == "assistant" else f"{turn.content}\n\n"
            )
    return "".join(parts)
