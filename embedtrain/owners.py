"""Which process a file that is being made belongs to, and whether that process still lives."""

import os
import platform
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path

CLOCK_SECONDS = 2
"""By how much two readings of one process's start may differ."""


@dataclass(frozen=True)
class Owner:
    """A process on some machine."""

    host: str
    pid: int
    started: int
    """Second of the epoch: the system uses a pid again, but with another start."""

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine, so that this process can tell if it lives."""
        return self.host == platform.node()

    @property
    def lives(self) -> bool:
        """Whether a process of this machine is this very one."""
        start = _start_of(self.pid)
        return start is not None and abs(start - self.started) <= CLOCK_SECONDS

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started).astimezone().isoformat(" ", "seconds")
        return f"process {self.pid} on {self.host}, running since {since}"


def this_process() -> Owner:
    """Return the owner that this process is."""
    return Owner(platform.node(), os.getpid(), _start_of(os.getpid()) or 0)


@cache
def process_space() -> str:
    """Return eight hex digits that are the same for all processes that can see each other by pid.

    Containers may share a machine's name and a disk, and yet count their processes apart.
    """
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        space = ""
    return blake2b(f"{platform.node()} {space}".encode(), digest_size=4).hexdigest()


def _start_of(pid: int) -> int | None:
    import psutil

    try:
        process = psutil.Process(pid)
        ended = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return None if ended else int(process.create_time())
    except psutil.Error:
        return None
