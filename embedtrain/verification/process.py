"""A program in a process of its own that must speak in time, and whose last words are kept."""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import IO

import psutil

from embedtrain.errors import UserError, one_line

LAST_LINES = 20
"""Of what a program printed, kept for the report."""
SECRETS = ("EMBEDTRAIN_SERVE_TOKEN", "EMBEDTRAIN_VERIFY_KEY")
"""Not for programs of others."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}


class ReaderFailed(UserError):  # noqa: N818 - a kind of UserError
    """A reader died, hung, or gave what is no answer; the others go on."""


class Program:
    """A process that runs, and the lines that it says."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: IO[bytes]) -> None:
        self.name, self._process, self._log = name, process, log
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError, OSError):  # closed while it was read
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def say(self, line: str) -> None:
        """Write a line to its standard input; a dead one is noticed when it should answer."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def hear(self, seconds: float) -> str:
        """Return the next line that it says.

        Raises:
            ReaderFailed: If it ends or says nothing in that time.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except Empty:
            raise self.failure(f"said nothing for {seconds:.0f} s") from None
        if line is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            raise self.failure(f"ended with code {self._process.returncode}")
        return line

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def failure(self, problem: str) -> ReaderFailed:
        """Return an error with the program's last words."""
        self._log.seek(0)
        words = self._log.read()[-65_536:].decode("utf-8", "replace").strip().splitlines()
        # The very last one first: of a traceback it says what happened, and long words are cut at their end.
        last = one_line(" | ".join([*words[-1:], *words[-LAST_LINES:-1]]))
        return ReaderFailed(self.name, problem, got=last[:1500] if last else ...)

    def memory(self) -> int:
        """Return the bytes that it and its children take now."""
        try:
            process = psutil.Process(self._process.pid)
            every = [process, *process.children(recursive=True)]
            return sum(one.memory_info().rss for one in every)
        except psutil.Error:
            return 0


@contextmanager
def program(
    name: str, command: Sequence[str], *, more: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Run a program until the block ends; then it and all that it started are ended.

    Args:
        name: Of the reader, for messages.
        command: What to run.
        more: Variables of its environment.

    Raises:
        ReaderFailed: If there is no such program.
    """
    environment = {key: value for key, value in os.environ.items() if key not in SECRETS}
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=environment | OFFLINE | dict(more or {}), start_new_session=True, encoding="utf-8",
                errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise ReaderFailed(name, f"cannot be run: {error.strerror}", got=command[0]) from error
        try:
            yield Program(name, process, log)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError, ValueError):
            if pipe is not None:
                pipe.close()
