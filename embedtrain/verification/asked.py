"""Readers that are servers: OpenAI's ``/v1/embeddings``, and text-embeddings-inference's ``/embed``."""

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import numpy as np

from embedtrain.redaction import redact
from embedtrain.verification.process import ReaderFailed
from embedtrain.verification.values import Bound, Mode, Vector

KEY = "EMBEDTRAIN_VERIFY_KEY"
"""Environment variable with the bearer token of servers that are named by their address."""
TEXT_SECONDS = 30.0
REFUSALS = (400, 413, 415, 422)
"""What servers answer to a text that they do not take."""


class AskedReader:
    """A server that speaks HTTP.

    Args:
        name: For the report.
        address: With its routes' prefix: ``http://host:port/v1``.
        bound: Of its numbers.
        model: What requests call the model.
        input_types: Whether it takes ``input_type``, as ours does, and adds prompts.
        tei: Whether it speaks text-embeddings-inference's language.
        memory: What tells the bytes that it takes.

    Raises:
        ReaderFailed: From each call, if it is down, hangs, or answers something else.
    """

    def __init__(
        self, name: str, address: str, bound: Bound, *, model: str = "", input_types: bool = False, tei: bool = False,
        memory: Callable[[], int] = lambda: 0, text_seconds: float = TEXT_SECONDS,
    ) -> None:  # fmt: skip
        self.name, self.bound, self.adds_prompts = name, bound, input_types
        self.modes: tuple[Mode, ...] = ("query", "document", "plain")
        self.modes = self.modes[:2] if input_types else self.modes
        self._address, self._model, self._tei, self.memory = address.rstrip("/"), model, tei, memory
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(timeout=text_seconds, headers=headers, trust_env=False)

    def encode(self, texts: Sequence[str], mode: Mode) -> list[Vector] | None:
        """Return vectors; None where the server refuses the texts."""
        found = self._post_tei(texts) if self._tei else self._post_openai(texts, mode)
        if found is None:
            return None
        if len(found) != len(texts):
            raise self._failure(f"gave {len(found)} vectors for {len(texts)} texts")
        return found

    def ids(self, texts: Sequence[str], mode: Mode) -> list[list[int]] | None:
        """Return token ids, where the server has text-embeddings-inference's route for them."""
        del mode
        if not self._tei:
            return None
        content = self._post("/tokenize", {"inputs": list(texts), "add_special_tokens": True})
        try:
            return None if content is None else [[one["id"] for one in row] for row in content]
        except (KeyError, TypeError):
            return None

    def close(self) -> None:
        """Let go of the server."""
        self._client.close()

    def _post_openai(self, texts: Sequence[str], mode: Mode) -> list[Vector] | None:
        asked = {"input": list(texts), "model": self._model, "encoding_format": "float"}
        if self.adds_prompts:
            asked |= {"input_type": mode, "encoding_format": "base64"}
        content = self._post("/embeddings", asked)
        if content is None:
            return None
        try:
            rows = sorted(content["data"], key=lambda row: row["index"])
            return [_vector(row["embedding"]) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise self._failure("gave no vectors") from error

    def _post_tei(self, texts: Sequence[str]) -> list[Vector] | None:
        content = self._post("/embed", {"inputs": list(texts), "truncate": True})
        try:
            return None if content is None else [_vector(row) for row in content]
        except (TypeError, ValueError) as error:
            raise self._failure("gave no vectors") from error

    def _post(self, route: str, asked: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON
        try:
            answer = self._client.post(f"{self._address}{route}", json=asked)
            if answer.status_code in REFUSALS:
                return None
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, UnicodeError) as error:
            raise self._failure(f"does not answer: {error or type(error).__name__}") from error

    def _failure(self, problem: str) -> ReaderFailed:
        return ReaderFailed(self.name, problem, got=redact(self._address))


def _vector(given: object) -> Vector:
    if isinstance(given, str):
        return np.frombuffer(base64.b64decode(given), "<f4").astype(np.float32)
    vector: Vector = np.array(given, np.float32)
    if vector.ndim != 1:
        raise ValueError("not one row of numbers")
    return vector
