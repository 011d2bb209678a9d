"""Ranks live and die with the process that started them, however that one ends.

Where the kernel can, it kills a rank when its parent dies. Everywhere a pipe tells: only the parent holds the end that
writes, so its death is the end of the file. And all hold one lock, which is free when the last of them is gone.
"""

import ctypes
import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from embedtrain.errors import UserError
from embedtrain.outside import writing

PARENT = "EMBEDTRAIN_PARENT"
"""Environment variable of a rank: its parent's id, and the descriptor that ends with it."""
TORCHRUN = "TORCHELASTIC_RUN_ID"
LOCK = "ranks/alive"
SET_DEATH_SIGNAL = 1
"""``PR_SET_PDEATHSIG`` of Linux."""


class Ties(NamedTuple):
    """What a rank is started with."""

    environment: dict[str, str]
    descriptors: tuple[int, ...]


@contextmanager
def tied_ranks(run: Path) -> Iterator[Ties]:
    """Yield what ties the ranks of a run to this process.

    Raises:
        UserError: If ranks of the same run are alive.
    """
    lock = _lock(run)
    reads, writes = os.pipe()
    try:
        yield Ties({PARENT: f"{os.getpid()} {reads}"}, (reads, lock))
    finally:
        for descriptor in (reads, writes, lock):
            os.close(descriptor)


def refuse_living_ranks(run: Path) -> None:
    """Refuse to go on with a run that ranks are working on.

    Raises:
        UserError: If there are any.
    """
    if (run / LOCK).is_file():
        os.close(_lock(run))


def live_with_parent() -> None:
    """End with the process that started this rank; nothing where this is none."""
    given = os.environ.pop(PARENT, None)  # not for the processes that this one starts
    if given is None and TORCHRUN not in os.environ:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    if given is None:
        return
    parent, descriptor = map(int, given.split())
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)
    threading.Thread(target=_end_with_file, args=(descriptor,), daemon=True).start()


def _end_with_file(descriptor: int) -> None:
    os.read(descriptor, 1)
    os._exit(1)


def _lock(run: Path) -> int:
    """Return the descriptor of the lock, which those that inherit it hold as well."""
    path = run / LOCK
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 200).decode(errors="replace")
        os.close(lock)
        raise UserError(
            run,
            "has ranks that are alive",
            got=owner or "no name",
            cure="Wait for them, or end the process that started them",
        ) from None
    except OSError:
        return lock  # a file system without locks
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return lock
