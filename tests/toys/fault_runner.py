"""Runs a command of the world under a fault and says how it ended."""

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from fault_commands import Command
from fault_kinds import faults_of, remove
from fault_places import (
    can_freeze,
    can_mount,
    drop_privilege,
    fill,
    forbid,
    forget_locks,
    freeze,
    limit,
    mark,
    mount,
)
from fault_world import run_here
from forks import fork

from embedtrain.locks import owned

PATIENCE = 60  # seconds of wall time; a command that works takes one or two
CPU_SECONDS = 20


@dataclass(frozen=True)
class Case:
    """A command, and what is done to it.

    Args:
        fault: What the table of failures calls it.
        spoil: Changes the files of the world's copy.
        before: Runs in the process of the command.
        output: Where the command writes, if not where it does by itself.
        spoilt: The file that is spoilt, below the world.
        kill: A signal, and the share of the command's time after which it comes; then the command runs again.
        owned: Another process that lives owns the output.
    """

    command: Command
    fault: str
    spoil: Callable[[Path], object] = lambda _: None
    before: Callable[[], object] = lambda: None
    output: str = ""
    spoilt: str = ""
    kill: tuple[int, float] | None = None
    owned: bool = False

    @property
    def words(self) -> list[str]:
        """The command line."""
        return self.command.line(self.output)


def input_cases(command: Command, world: Path) -> Iterator[Case]:
    """Yield every fault of every file that a command reads."""
    for pattern in command.reads:
        for path in sorted(world.glob(pattern)):
            if not path.is_file():
                continue
            place = str(path.relative_to(world))
            for name, fault in faults_of(path):
                spoil = partial(_spoil, place=place, fault=fault)
                yield Case(command, f"{place} {name}", spoil, spoilt=place)
            yield Case(
                command,
                f"{place} unreadable",
                lambda folder, place=place: (folder / place).chmod(0),  # type: ignore[misc]
                before=drop_privilege,
                spoilt=place,
            )


def _spoil(folder: Path, place: str, fault: Callable[[Path], object]) -> None:
    fault(folder / place)


def output_cases(command: Command) -> Iterator[Case]:
    """Yield every fault of the place that a command writes to."""
    if not command.writes:
        return
    new = f"disk/{command.writes}"
    if can_mount():
        for room in ("4k", "16k", "64k", "256k"):
            sized = partial(mount, options=f"size={room}")
            yield Case(command, f"a disk of {room}", sized, output=new)
        yield Case(command, "a read-only disk", partial(mount, options="ro"), output=new)
    yield Case(command, "a folder without permission", forbid, drop_privilege, output=new)
    if can_freeze():
        yield Case(command, "a folder that nobody may change", freeze, output=new)
    yield Case(command, "another owner", before=forget_locks, owned=True)
    for size in (4_000, 20_000, 100_000):  # what is said must fit as well
        yield Case(command, f"files of {size} bytes at most", before=partial(limit, size))
    long = "x" * 300 + Path(command.writes).suffix
    name = "n" * 240 + Path(command.writes).suffix
    yield Case(command, "a name too long", output=long)
    yield Case(command, "a name nearly too long", output=name)
    yield Case(command, "new folders", output=f"disk/a/b/{command.writes}")
    yield Case(command, "below a file", output=f"pairs.jsonl/{command.writes}")
    yield Case(command, "a file in its place", lambda folder: (folder / command.writes).touch())
    yield Case(command, "a folder in its place", partial(fill, name=command.writes))
    link = command.writes
    yield Case(
        command,
        "a dead link in its place",
        lambda folder: (folder / link).symlink_to(f"out-of-{link}"),
    )


def kill_cases(command: Command) -> Iterator[Case]:
    """Yield signals at instants drawn by the command's name."""
    random = Random(zlib.crc32(command.name.encode()))
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        for _ in range(2):
            share = random.random()
            name = f"{signal.Signals(number).name} after {share:.0%}"
            yield Case(command, name, kill=(number, share))


def judge(case: Case, world: Path, folder: Path, seconds: float) -> tuple[str, str]:
    """Run a case in ``folder``, a copy of the world; return the verdict and what was said."""
    shutil.copytree(world, folder, symlinks=True)
    try:
        case.spoil(folder)
        with owned(folder / case.command.writes) if case.owned else nullcontext():
            before = digests(folder)
            try:
                code, said = _run(case, folder, seconds)
            except TimeoutError:
                return "hang", f"after {PATIENCE} s"
            verdict = _verdict(case, folder, before, code, said)
            new = ", ".join(place for place in digests(folder) if place not in before)
            return verdict, f"exit code {code}: {said[-1500:]} new files: {new}"
    finally:
        if case.spoil is freeze:
            mark(folder / "disk", "-i")
        if os.path.ismount(folder / "disk"):
            subprocess.run(["umount", folder / "disk"], check=True)
        shutil.rmtree(folder)


def _run(case: Case, folder: Path, seconds: float) -> tuple[int, str]:
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        case.before()
        if case.kill is not None:
            number, share = case.kill
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), number))
            signal.setitimer(signal.ITIMER_REAL, max(share * seconds, 0.01))
        run_here(case.words)

    done = fork(work, cwd=folder, patience=PATIENCE)
    code = 0 if done.returncode in case.command.ends else done.returncode
    if case.kill is None or code == 0:
        return code, done.stdout + done.stderr
    number = case.kill[0]
    if done.returncode not in (-number, 128 + number) or "Traceback" in done.stderr:
        return 1, f"killed: {done.returncode} {done.stderr}"
    words = case.words
    if case.command.writes and "train" in words and (folder / "out" / "recipe.yaml").exists():
        words = ["train", "--resume", "out"]
    elif words[0] == "train" and case.command.writes:
        remove(folder / "out")
    again = fork(lambda: run_here(words), cwd=folder, patience=PATIENCE)
    deadline = time.monotonic() + 5
    while "written by another process" in again.stderr and time.monotonic() < deadline:
        time.sleep(0.2)  # what the killed one had started lives a moment longer, under its lock
        again = fork(lambda: run_here(words), cwd=folder, patience=PATIENCE)
    if again.returncode == 2 and (folder / case.command.writes).exists():
        # It was whole already; what the kill left is swept when the next output is made beside it.
        words = case.command.line(f"out-{case.command.writes}")
        again = fork(lambda: run_here(words), cwd=folder, patience=PATIENCE)
    whole = again.returncode in case.command.ends or (folder / case.command.writes).exists()
    return (0 if whole else 1), f"again: {again.returncode} {again.stdout}{again.stderr}"


def _verdict(case: Case, folder: Path, before: dict[str, str], code: int, said: str) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "hang"
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if code not in (0, 2) or "Traceback" in said or (code == 2 and len(lines) != 1):
        return "traceback"
    after = digests(folder)
    if case.owned and (code != 2 or "is being written by another process" not in said):
        return "lost"
    if any(after.get(place) != digest for place, digest in before.items() if _is_kept(case, place)):
        return "lost"
    new = [place for place in after if place not in before]
    if any(_is_leftover(case, place, code) for place in new):
        return "leftover"
    return "handled"


def _is_kept(case: Case, place: str) -> bool:
    """Whether a command may not change this file; a run that goes on changes its own, an output is replaced."""
    own = "run/" if case.command.name == "resume" else case.command.writes
    if "precious" in place:
        return True
    return not (own and place.startswith(own.removesuffix("/"))) and place != case.spoilt


def _is_leftover(case: Case, place: str, code: int) -> bool:
    name = place.removeprefix("disk/a/b/").removeprefix("disk/")
    if case.kill is not None and name == f".{case.command.writes}.lock":
        return False  # a dead owner's, taken over when the same output is written again
    name = name.removesuffix("/.lock")  # Qdrant's own, in its store; ours have the output's name
    if any(part in name for part in (".tmp", ".partial", "building-", "writing-", "/.")):
        return not (case.command.keeps and code != 0)
    stem = Path(case.output or case.command.writes).stem
    own = name.startswith((stem[:100], "out")) or (
        case.command.name == "resume" and name.startswith("run/")
    )
    return not own or (code != 0 and not case.command.keeps)


def digests(folder: Path) -> dict[str, str]:
    """Return what each file below a folder holds; links and pipes by what they are."""
    found = {}
    for root, folders, names in os.walk(folder):
        for name in (*names, *(one for one in folders if (Path(root) / one).is_symlink())):
            path = Path(root) / name
            kind = "link" if path.is_symlink() else "" if path.is_file() else "other"
            content = kind or hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
            found[str(path.relative_to(folder))] = content
    return found


def run_cases(
    cases: list[Case], world: Path, scratch: Path, seconds: float
) -> tuple[Counter[str], list[str]]:
    """Judge cases; return how many had each verdict, and a line or more for each that was not handled."""
    counts: Counter[str] = Counter()
    bad = []
    for number, case in enumerate(cases):
        verdict, said = judge(case, world, scratch / str(number), seconds)
        counts[verdict] += 1
        if verdict != "handled":
            bad.append(f"{case.command.name}: {case.fault}: {verdict}, {said}")
    return counts, bad
