"""Start the ranks of one machine and answer for them: one that fails ends all, with one clear message."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedtrain.errors import EXIT_CODES, Interrupted, RankDied, UserError
from embedtrain.stopping import deferring, listening, requested
from embedtrain.training.ranks.ties import tied_ranks

REPORT = "EMBEDTRAIN_REPORT"
"""Environment variable: the file into which a rank writes its last words."""
POLL_SECONDS = 0.1
BLAME_SECONDS = 0.5
"""How long a rank that failed waits for one that was killed to be seen."""
GRACE_SECONDS = 120.0
"""For the other ranks to save a checkpoint when one has been stopped by a signal."""
LAST_WORDS = 4096
"""Bytes of a log in which the last line is looked for."""
STOPPED = {code: number for number, code in EXIT_CODES.items()}
"""Exit codes of a rank that a signal has stopped in good order, and the signal."""


class RankError(UserError):
    """A user's mistake that a rank has put into words."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)


def launch(command: Sequence[str], num_ranks: int, run: Path) -> None:
    """Run a command in ``num_ranks`` processes and wait for them; none outlives this one.

    The first rank writes to this terminal, the others into ``ranks/`` of the run folder. Signals are passed on,
    so that all ranks save a checkpoint together and end; a second one ends them at once.

    Raises:
        UserError: What a rank complained of, or that ranks of this run are alive.
        Interrupted: If a signal stopped them.
        RankDied: If one was killed or failed; it says how to go on.
    """
    logs = run / "ranks"
    reports = [logs / f"rank-{rank}.report" for rank in range(num_ranks)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    address["PYTHONPATH"] = os.pathsep.join(sys.path)  # ranks find the user's modules where we do
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    with tied_ranks(run) as ties, listening(), deferring(pass_on):
        for report in reports:
            report.unlink(missing_ok=True)
        try:
            for rank, report in enumerate(reports):
                numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks}
                numbers |= {"LOCAL_WORLD_SIZE": num_ranks, "GROUP_RANK": 0}
                own = {name: str(value) for name, value in numbers.items()}
                own[REPORT] = str(report)
                environment = os.environ | _threads(num_ranks) | address | own | ties.environment
                processes.append(_start(command, environment, logs, rank, ties.descriptors))
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
    command: Sequence[str],
    environment: dict[str, str],
    logs: Path,
    rank: int,
    descriptors: Sequence[int],
) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
    settings: dict[str, Any] = {
        "env": environment, "start_new_session": True, "pass_fds": descriptors,
    }  # fmt: skip
    if rank == 0:
        return subprocess.Popen(command, **settings)
    with (logs / f"rank-{rank}.txt").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, **settings)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait until all have ended well, or one has failed; return which.

    When one has stopped in good order, the others may fail at its absence: that is no failure.
    """
    deadline, waited = float("inf"), False
    while True:
        codes = [process.poll() for process in processes]
        stopped = [rank for rank, code in enumerate(codes) if code in STOPPED]
        if stopped or requested():
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        bad = [rank for rank, code in enumerate(codes) if code not in (None, 0, *STOPPED)]
        # A rank that was killed makes the others fail: it is the one to name, also if they are seen first.
        bad.sort(key=lambda rank: (codes[rank] or 0) > 0)
        if bad and None in codes and (codes[bad[0]] or 0) > 0 and not waited:
            waited = True
            time.sleep(BLAME_SECONDS)
            continue
        is_over = None not in codes or time.monotonic() > deadline
        if is_over or (bad and deadline == float("inf")):
            return next(iter([*stopped, *bad]), None)
        time.sleep(POLL_SECONDS)


def _verdict(rank: int, code: int, report: Path, logs: Path, run: Path) -> Exception:
    """Say what has happened and how to go on."""
    said = report.read_text(encoding="utf-8") if report.is_file() else ""
    way_on = f"embedtrain train --resume {run}"
    asked = requested()
    if code in STOPPED or code == -asked:  # the signal came before the rank could hear it
        number = STOPPED.get(code, asked)
        name = signal.Signals(number).name
        what = said.partition("; ")[0] or f"stopped by {name}"
        return Interrupted(what, number, f"continue with: {way_on}")
    if said:
        return RankError(said)
    way = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with code {code}"
    where = "" if rank == 0 or code < 0 else f"; see {logs / f'rank-{rank}.txt'}"
    return RankDied(
        f"rank {rank} {way}{_last_line(logs / f'rank-{rank}.txt')}{where}; the other ranks were ended. "
        f"Continue from the last checkpoint with: {way_on}"
    )


def _last_line(log: Path) -> str:
    """Return what a rank said last; the first one's words stand above, on the terminal."""
    if not log.is_file() or log.name == "rank-0.txt":
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_WORDS))
        lines = file.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f" after {said[-1]!r}" if said else ""


def _threads(num_ranks: int) -> dict[str, str]:
    """Share the cores, unless the user has decided."""
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_ranks))}
