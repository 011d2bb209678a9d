"""Processes of this package that answer questions: for work that is more than one core of Python does in time.

Not multiprocessing: it would run a user's script again, or copy a process that has threads.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import IO

from embedtrain.errors import EXIT_CODES, UserError

SIZE_BYTES = 8
"""A question or an answer is its size, then its bytes."""


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def workers(module: str, number: int, place: str) -> Iterator[Callable[[bytes], Future[bytes]]]:
    """Start processes that run a module, which calls :func:`answer_all`; yield what asks whichever is idle.

    Args:
        module: Its full name.
        number: How many processes.
        place: What the work is about, for the error.

    Raises:
        UserError: In the future of a question, if the process that it was put to has died.
    """
    pipe = subprocess.PIPE
    started: list[subprocess.Popen[bytes]] = []
    idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()

    def ask(question: bytes) -> bytes:
        worker = idle.get()
        try:
            return _ask(worker, question, place)
        finally:
            idle.put(worker)  # a dead one too: whoever waits for it must not wait for ever

    pool = ThreadPoolExecutor(number)
    try:
        for _ in range(number):
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", module], stdin=pipe, stdout=pipe, start_new_session=True
                )
            )
            idle.put(started[-1])
        yield lambda question: pool.submit(ask, question)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in started:
            worker.kill()
            with suppress(BrokenPipeError):
                worker.communicate()


def answer_all(answer: Callable[[bytes], bytes]) -> None:
    """Answer each question that comes in on standard input, until there are no more.

    Schedulers send signals to every process of a job. Only the one that asks decides what comes of them.
    """
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)
    while (question := _read(sys.stdin.buffer)) is not None:
        _write(sys.stdout.buffer, answer(question))


def _ask(worker: "subprocess.Popen[bytes]", question: bytes, place: str) -> bytes:
    assert worker.stdin is not None
    assert worker.stdout is not None
    with suppress(BrokenPipeError):
        _write(worker.stdin, question)
        if (answer := _read(worker.stdout)) is not None:
            return answer
    raise UserError(place, "lost one of the processes that read it", cure="Try again")


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(len(content).to_bytes(SIZE_BYTES, "little"))
    file.write(content)
    file.flush()


def _read(file: IO[bytes]) -> bytes | None:
    """Return a message; None at the end, also where it comes in the middle of one."""
    head = file.read(SIZE_BYTES)
    size = int.from_bytes(head, "little")
    content = file.read(size) if len(head) == SIZE_BYTES else b""
    return content if len(head) == SIZE_BYTES and len(content) == size else None
