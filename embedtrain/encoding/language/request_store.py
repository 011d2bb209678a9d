"""Answers of language models, kept by what was asked: nothing that was paid for is lost, or paid for again.

The files are lines of JSON that are only ever appended to. Before a request is sent a line says so, and another one
tells what came back: of a run that was killed it is known which requests were under way, so the bill is complete.
There is no other state: what has an answer is done.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from embedtrain.encoding.language.chat import Reply
from embedtrain.errors import UserError
from embedtrain.outside import reading, writing

PART_BYTES = 2**26
LINES_PER_SYNC, SECONDS_PER_SYNC = 50, 5.0
"""After so many lines, or so long, the disk is waited for."""


@dataclass
class Bill:
    """What requests have cost in tokens, over all runs.

    Attributes:
        requests: That were sent, each time counted.
        answers: That are kept.
        prompt_tokens: As the server counted them, also of answers that could not be used.
        completion_tokens: The same.
        unknown: Requests of which nobody knows what they cost: cut, too late, or under way when a run was killed.
        unknown_prompt_tokens: At most, of those.
        unknown_completion_tokens: The same.
    """

    requests: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unknown: int = 0
    unknown_prompt_tokens: int = 0
    unknown_completion_tokens: int = 0

    def both(self) -> tuple[int, int]:
        """Return the tokens of prompts and of completions at most."""
        return (
            self.prompt_tokens + self.unknown_prompt_tokens,
            self.completion_tokens + self.unknown_completion_tokens,
        )


@dataclass
class _Account:
    """What is known of the requests that were sent."""

    bill: Bill = field(default_factory=Bill)
    open: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Requests that have not come back, and what they may cost."""
    sent: dict[str, int] = field(default_factory=dict)
    """How often each key was sent."""
    replies: dict[str, Reply] = field(default_factory=dict)

    def add(self, line: dict[str, Any]) -> None:
        """Take account of a line."""
        name = line.get("request", "")
        if "most" in line:
            key = name.rpartition(":")[0]
            self.sent[key] = self.sent.get(key, 0) + 1
            self.bill.requests += 1
            self.open[name] = (line["most"][0], line["most"][1])
            return
        most = self.open.pop(name, None)
        tokens = line.get("prompt_tokens"), line.get("completion_tokens")
        if "text" in line:
            self.bill.answers += line["key"] not in self.replies
            self.replies[line["key"]] = Reply(
                **{name: line[name] for name in REPLY if name in line}
            )
        if tokens[0] is None and most is not None:
            self.bill.unknown += 1
            self.bill.unknown_prompt_tokens += most[0]
            self.bill.unknown_completion_tokens += most[1]
        self.bill.prompt_tokens += tokens[0] or 0
        self.bill.completion_tokens += tokens[1] or 0


REPLY = tuple(Reply.__dataclass_fields__)


class RequestStore:
    """The answers kept in a folder. One process writes there: the output around it is owned by one.

    Args:
        folder: Of the files ``part-*.jsonl``.

    Raises:
        UserError: If a line is none of this.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._account = _Account()
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._unsynced, self._synced_at = 0, time.monotonic()
        self._number, torn = 0, False
        for number, path in enumerate(sorted(folder.glob("part-*.jsonl"))):
            for line in _lines(path):
                self._account.add(line)
            torn = _is_torn(path)
            self._number = number + (torn or path.stat().st_size >= PART_BYTES)
        self._before = frozenset(self._account.open)
        """What was under way when an earlier run was killed; its names are given to no other request."""

    def __enter__(self) -> "RequestStore":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._account.replies)

    def __contains__(self, key: str) -> bool:
        return key in self._account.replies

    def find(self, key: str) -> Reply | None:
        """Return an answer, or None."""
        return self._account.replies.get(key)

    def begin(self, key: str, prompt_tokens: int, completion_tokens: int) -> str:
        """Note that a request is about to be sent, and what it may cost at most; returns the name of this sending."""
        with self._lock:
            name = f"{key}:{self._account.sent.get(key, 0) + 1}"
            self._append(
                {"request": name, "most": [prompt_tokens, completion_tokens], "at": _now()}
            )
        return name

    def fail(self, name: str, problem: str, tokens: tuple[int, int] | None) -> None:
        """Note that a request brought nothing; ``tokens`` is what it cost, None if that is not known."""
        cost = (
            {} if tokens is None else {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
        )
        with self._lock:
            self._append({"request": name, "problem": problem, **cost})

    def keep(self, key: str, reply: Reply, name: str = "") -> None:
        """Keep an answer.

        Raises:
            UserError: If the disk does not take it.
        """
        line = {"key": key, "request": name, **asdict(reply), "at": _now()}
        with self._lock:
            self._append(
                {name: value for name, value in line.items() if value not in (None, "")}
                | {"text": reply.text}
            )

    def tries(self, key: str) -> int:
        """Return how often a request was sent."""
        return self._account.sent.get(key, 0)

    def bill(self, *, under_way: bool = True) -> Bill:
        """Return what was spent; requests that are under way count as unknown, at their most, unless left out."""
        with self._lock:
            found = Bill(**asdict(self._account.bill))
            names = self._account.open.keys() if under_way else self._before
            waiting = [self._account.open[name] for name in names]
        found.unknown += len(waiting)
        found.unknown_prompt_tokens += sum(prompt for prompt, _ in waiting)
        found.unknown_completion_tokens += sum(completion for _, completion in waiting)
        return found

    def close(self) -> None:
        """Wait for the disk."""
        with self._lock:
            if self._file is not None:
                self._sync()
                self._file.close()
                self._file = None

    def _append(self, line: dict[str, Any]) -> None:
        with writing(self.folder):
            if self._file is None or self._file.tell() >= PART_BYTES:
                self._open_part()
            assert self._file is not None
            self._file.write(json.dumps(line, ensure_ascii=True).encode() + b"\n")
            self._file.flush()
            self._unsynced += 1
            late = time.monotonic() - self._synced_at > SECONDS_PER_SYNC
            if self._unsynced >= LINES_PER_SYNC or late:
                self._sync()
        self._account.add(line)

    def _open_part(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._file is not None:
            self._sync()
            self._file.close()
            self._number += 1
        self._file = (self.folder / f"part-{self._number:05}.jsonl").open("ab")

    def _sync(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._unsynced, self._synced_at = 0, time.monotonic()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a part; a last one without its end is what a kill left of it."""
    with reading(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                content = json.loads(line)
                is_ours = isinstance(content, dict) and ("key" in content or "request" in content)
            except ValueError:
                content, is_ours = None, False
            if not is_ours:
                cure = "Remove the line: what it held is asked again"
                raise UserError(f"{path}:{number}", "is no kept answer", got=line[:80], cure=cure)
            yield content


def _is_torn(path: Path) -> bool:
    with reading(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"


def _now() -> float:
    return round(time.time(), 3)
