"""Readers that are libraries: each runs in a program of its own, which is asked line by line."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedtrain.verification.process import Program
from embedtrain.verification.programs import reader as program_file
from embedtrain.verification.values import Bound, Mode, Vector

START_SECONDS = 120.0
TEXT_SECONDS = 30.0
"""For a text; a batch gets more."""


class ProgrammedReader:
    """A library that runs in another process.

    Raises:
        ReaderFailed: From each call, if the process dies or hangs.
    """

    def __init__(
        self, name: str, program: Program, bound: Bound, *, adds_prompts: bool, text_seconds: float = TEXT_SECONDS
    ) -> None:  # fmt: skip
        self._program, self.bound, self.adds_prompts = program, bound, adds_prompts
        self._seconds = text_seconds
        self.modes: tuple[Mode, ...] = ("query", "document", "plain")
        version = self._hear(START_SECONDS).get("version")
        self.name = f"{name} {version}" if version else name

    def encode(self, texts: Sequence[str], mode: Mode) -> list[Vector] | None:
        """Return vectors, None where the library raises."""
        answer = self._ask("encode", texts, mode)
        if "error" in answer:
            return None
        try:
            content = np.frombuffer(base64.b64decode(answer["vectors"]), "<f4")
            vectors = content.reshape(answer["shape"]).astype(np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise self._program.failure("gave no vectors") from error
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise self._program.failure(f"gave numbers of the shape {vectors.shape}")
        return list(vectors)

    def ids(self, texts: Sequence[str], mode: Mode) -> list[list[int]] | None:
        """Return token ids."""
        answer = self._ask("ids", texts, mode)
        return None if "error" in answer else [list(map(int, one)) for one in answer["ids"]]

    def memory(self) -> int:
        """Return the bytes that the process takes."""
        return self._program.memory()

    def _ask(self, do: str, texts: Sequence[str], mode: Mode) -> dict[str, Any]:
        self._program.say(json.dumps({"do": do, "texts": list(texts), "mode": mode}))
        return self._hear(self._seconds * max(1.0, len(texts) / 4))

    def _hear(self, seconds: float) -> dict[str, Any]:
        line = self._program.hear(seconds)
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise self._program.failure("said what is no answer") from error
        return answer


def command_of(python: str, settings: dict[str, object]) -> list[str]:
    """Return what starts a library's program in a Python."""
    return [python, str(Path(program_file.__file__)), json.dumps(settings)]
