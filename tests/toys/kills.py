"""Processes that are killed at an instant drawn by chance: of the clock, or right before a write to the disk."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from forks import fork

from embedtrain.training.ranks.ties import LOCK, refuse_living_ranks

WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
LAUNCHER = "launcher"
SECONDS_TO_FOLLOW = 5.0
"""In which ranks end after the process that started them."""


@dataclass(frozen=True)
class Work:
    """A command that can be given again until it is done."""

    do: Callable[[Path], object]
    """Begins in a folder or goes on there."""
    outcome: Callable[[Path], dict[str, bytes]]
    """What must be the same at the end."""
    ranks: int = 1

    @property
    def victims(self) -> list[str]:
        """Who may be killed: the process, or the one that starts ranks, or a rank."""
        return [LAUNCHER, *(map(str, range(self.ranks)) if self.ranks > 1 else ())]


@dataclass
class Measured:
    """How long undisturbed work takes, and how many writes of each process."""

    seconds: float
    writes: dict[str, int]


@dataclass
class Tally:
    """What has happened."""

    kills: int = 0
    finished: int = 0
    by_victim: dict[str, int] = field(default_factory=dict)


def measure(work: Work, folder: Path) -> Measured:
    """Do the work in a fork, undisturbed."""
    counts = folder.parent / "writes"
    counts.mkdir(parents=True)

    def do() -> None:
        watch_writes(folder.parent, lambda number: tell_count(counts, number))
        work.do(folder)

    began = time.monotonic()
    done = fork_with_cache(do, folder)
    assert done.returncode == 0, done.stderr
    writes = {path.name: int(path.read_text() or 0) for path in counts.iterdir()}
    return Measured(time.monotonic() - began, writes)


def tell_count(folder: Path, number: int) -> None:
    descriptor = os.open("/dev/null", os.O_RDONLY)  # any: the file itself is no write of the work
    os.close(descriptor)
    (folder / whoami()).write_text(str(number))


def whoami() -> str:
    return os.environ.get("RANK", LAUNCHER)


def watch_writes(root: Path, heard: Callable[[int], None]) -> None:
    """Call ``heard`` with its number before each write below a folder, in this process and its forks."""
    state = {"number": 0, "process": os.getpid(), "busy": False}
    sync = os.fsync

    def count() -> None:
        if state["process"] != os.getpid():
            state.update(number=0, process=os.getpid())
        if not state["busy"]:
            state["busy"] = True
            state["number"] += 1
            heard(state["number"])
            state["busy"] = False

    def hear(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        elif event in WRITES:
            path, writes = arguments[0], True
        else:
            return
        if writes and isinstance(path, str | os.PathLike) and str(path).startswith(str(root)):
            count()

    def fsync(number: int) -> None:
        count()
        sync(number)

    os.fsync = fsync
    sys.addaudithook(hear)


def die(work: Work, folder: Path, measured: Measured, draw: random.Random) -> str:
    """Do the work in a fork that is killed; return who died, nobody if it ended before."""
    victim = draw.choice(work.victims)
    by_clock = draw.random() < 0.5
    seconds = draw.random() * measured.seconds
    write = draw.randint(1, max(1, measured.writes.get(victim, 1)))

    def at_write(number: int) -> None:
        if whoami() == victim and number == write:
            os.kill(os.getpid(), signal.SIGKILL)

    def do() -> None:
        if by_clock:
            arm(victim, seconds)
        else:
            watch_writes(folder.parent, at_write)
        work.do(folder)

    done = fork_with_cache(do, folder)
    if done.returncode == 0:
        return ""
    killed = "SIGKILL" in done.stderr or done.returncode == -signal.SIGKILL
    assert killed, f"{victim} was to die: {done.returncode}\n{done.stderr}"
    wait_for_ranks(folder)
    return victim


def arm(victim: str, seconds: float) -> None:
    """Kill a process of the work so many seconds after its beginning."""

    def start() -> None:
        if whoami() == victim:
            timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()

    start()
    armed.append(start)


armed: list[Callable[[], None]] = []
"""What a forked rank does first."""


def wait_for_ranks(folder: Path) -> None:
    """Wait until no rank of any run lives, which takes less than five seconds."""
    deadline = time.monotonic() + SECONDS_TO_FOLLOW
    for lock in folder.rglob(LOCK):
        while True:
            try:
                refuse_living_ranks(lock.parents[1])
                break
            except ValueError:
                assert time.monotonic() < deadline, "ranks outlive their launcher"
                time.sleep(0.02)


def fork_with_cache(do: Callable[[], None], folder: Path):
    return fork(do, environment={"EMBEDTRAIN_CACHE": str(folder.parent / "cache")})


def torment(work: Work, expected: dict[str, bytes], kills: int, root: Path, seed: str) -> Tally:
    """Kill the work again and again until it is done, and begin anew, until ``kills`` are reached."""
    measured = measure(work, root / "measured" / "out")
    assert work.outcome(root / "measured" / "out") == expected
    draw, tally, folder = random.Random(seed), Tally(), root / "0" / "out"
    folder.parent.mkdir()
    while tally.kills < kills:
        victim = die(work, folder, measured, draw)
        if victim:
            tally.kills += 1
            tally.by_victim[victim] = tally.by_victim.get(victim, 0) + 1
            continue
        check(work, folder, expected, tally)
        folder = root / str(tally.finished) / "out"
        folder.parent.mkdir()
    done = fork_with_cache(lambda: work.do(folder), folder)
    assert done.returncode == 0, done.stderr
    check(work, folder, expected, tally)
    return tally


def check(work: Work, folder: Path, expected: dict[str, bytes], tally: Tally) -> None:
    found = work.outcome(folder)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name
    tally.finished += 1


class ForkedRank(subprocess.Popen):
    """Stands for the process that :mod:`embedtrain.training.ranks.launcher` starts, without its imports."""

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], log: Path | None
    ) -> None:
        from embedtrain.cli.main import main

        self.returncode: int | None = None
        self._child_created = False  # Popen's own end has nothing to do
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            os.environ.clear()
            os.environ.update(environment)
            if log is not None:
                sys.stderr = sys.stdout = log.open("w")
            for start in armed:
                start()
            sys.argv = ["embedtrain", *command[3:]]
            main()
            code = 0
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def __del__(self, *_: object) -> None:
        """Do nothing: ``Popen`` would look for what it has not begun."""

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork_ranks(command, environment, logs, rank, descriptors):
    """Take the place of ``launcher._start``."""
    return ForkedRank(command, environment, logs / f"rank-{rank}.txt" if rank else None)


def small_blocks(patch: pytest.MonkeyPatch) -> None:
    """Encode eight texts at once, so that even a toy's corpus has blocks to be killed between."""
    patch.setattr("embedtrain.encoding.texts.TEXTS_AT_ONCE", 8)
    for bound in ("FEWEST", "MOST"):
        patch.setattr(f"embedtrain.encoding.blocks.{bound}", 8)
