"""Start the ranks of one machine and answer for them: one that fails ends all, with one clear message."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from embedtrain.errors import INTERRUPTED, Interrupted, RankDied, UserError

REPORT = "EMBEDTRAIN_REPORT"
"""Environment variable: the file into which a rank writes its last words."""
POLL_SECONDS = 0.1
GRACE_SECONDS = 120.0
"""For the other ranks to save a checkpoint when one has been stopped by a signal."""


class RankError(UserError):
    """A user's mistake that a rank has put into words."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)


def launch(command: Sequence[str], num_ranks: int, run: Path) -> None:
    """Run a command in ``num_ranks`` processes and wait for them.

    The first rank writes to this terminal, the others into ``ranks/`` of the run folder. SIGTERM and
    Ctrl-C are passed on, so that all ranks save a checkpoint together and end.

    Raises:
        UserError: What a rank complained of.
        Interrupted: If a signal stopped them.
        RankDied: If one was killed or failed; it says how to go on.
    """
    logs = run / "ranks"
    logs.mkdir(exist_ok=True)
    reports = [logs / f"rank-{rank}.report" for rank in range(num_ranks)]
    for report in reports:
        report.unlink(missing_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    address["PYTHONPATH"] = os.pathsep.join(sys.path)  # ranks find the user's modules where we do
    processes: list[subprocess.Popen[bytes]] = []
    with _passing_signals_on(processes):
        try:
            for rank, report in enumerate(reports):
                numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks}
                numbers |= {"LOCAL_WORLD_SIZE": num_ranks, "GROUP_RANK": 0}
                own = {name: str(value) for name, value in numbers.items()}
                own[REPORT] = str(report)
                environment = os.environ | _threads(num_ranks) | address | own
                processes.append(_start(command, environment, logs, rank))
            failed = _wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    if failed is not None:
        raise _verdict(failed, processes[failed].returncode, reports[failed], logs, run)


def report_failure(message: str) -> bool:
    """Leave a message for the process that started this rank; False if none did."""
    if REPORT not in os.environ:
        return False
    Path(os.environ[REPORT]).write_text(message, encoding="utf-8")
    return True


def speaks() -> bool:
    """Whether this process tells the user how the work ended."""
    return REPORT not in os.environ and os.environ.get("RANK", "0") == "0"


def _start(
    command: Sequence[str], environment: dict[str, str], logs: Path, rank: int
) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
    if rank == 0:
        return subprocess.Popen(command, env=environment, start_new_session=True)
    with (logs / f"rank-{rank}.txt").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=log, stderr=log
        )


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait until all have ended well, or one has failed; return which."""
    deadline = float("inf")
    while True:
        codes = [process.poll() for process in processes]
        bad = [rank for rank, code in enumerate(codes) if code not in (None, 0, INTERRUPTED)]
        if bad:
            return bad[0]
        if None not in codes:
            return codes.index(INTERRUPTED) if INTERRUPTED in codes else None
        if INTERRUPTED in codes:
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
            if time.monotonic() > deadline:
                return codes.index(INTERRUPTED)
        time.sleep(POLL_SECONDS)


def _verdict(rank: int, code: int, report: Path, logs: Path, run: Path) -> Exception:
    """Say what has happened and how to go on."""
    said = report.read_text(encoding="utf-8") if report.is_file() else ""
    if code == INTERRUPTED:
        return Interrupted(said or "interrupted")
    if said:
        return RankError(said)
    way = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with code {code}"
    where = "" if rank == 0 or code < 0 else f"; see {logs / f'rank-{rank}.txt'}"
    return RankDied(
        f"rank {rank} {way}{where}; the other ranks were ended. "
        f"Continue from the last checkpoint with: embedtrain train --resume {run}"
    )


@contextmanager
def _passing_signals_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def pass_on(number: int, _: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _threads(num_ranks: int) -> dict[str, str]:
    """Share the cores, unless the user has decided."""
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_ranks))}
