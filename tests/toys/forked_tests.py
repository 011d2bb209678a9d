"""Run the tests in forks of the process that has collected them: ``pytest --forks auto``.

What tests import, under the hook that checks types, is imported once, and all tests are collected once. The workers of
pytest-xdist, with which the tests run too, do both once each, which was a tenth of the processor time of all tests.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import pytest

MOST = 4
"""Forks at once of ``--forks auto``: each holds what its files' fixtures built."""
PATIENCE = 10.0
"""Seconds for forks to tear down what their tests have set up, once nobody waits for them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("forks")
    group.addoption(
        "--forks",
        default="0",
        help="how many forks run the tests: a number, or auto for one a core",
    )
    group.addoption(
        "--forks-take", default="file", choices=("file", "test"),
        help="what a fork is given at a time: of a file it builds the fixtures once",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Take the place of pytest's own loop, where forks are wished and all could be collected."""
    forks = session.config.getoption("forks")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(cores or 1, MOST) if forks == "auto" else int(forks)
    if not count or session.config.option.collectonly or session.testsfailed:
        return None
    if started := [one.name for one in threading.enumerate() if one is not threading.main_thread()]:
        names = ", ".join(started)
        raise pytest.UsageError(f"what tests import has started threads, which forks lack: {names}")
    groups = deque(shares(session, session.config.getoption("forks_take")))
    session.config._tmp_path_factory.getbasetemp()  # one for all, not one a fork
    workers: list[Worker] = []
    try:
        for _ in range(min(count, len(groups))):
            workers.append(start(session))
        listen(session, workers, groups)
    finally:
        end(workers)
    return True


def shares(session: pytest.Session, of: str) -> list[list[int]]:
    """Return the numbers of the tests that go together, files of many tests first, so that all end together."""
    numbers = range(len(session.items))
    if of == "test":
        return [[number] for number in numbers]
    files = groupby(numbers, key=lambda number: session.items[number].path)
    return sorted(map(list, (found for _, found in files)), key=len, reverse=True)


@dataclass
class Worker:
    """A fork, seen by the process that started it."""

    process: int
    connection: Connection
    running: tuple[str, Any] | None = None
    """Id and place of its test."""


def start(session: pytest.Session) -> Worker:
    ours, theirs = Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        ours.close()
        _work_and_exit(session, theirs)
    theirs.close()
    return Worker(process, ours)


def listen(session: pytest.Session, workers: list[Worker], groups: deque[list[int]]) -> None:
    """Give out groups and pass on what is said of their tests, until all are done or enough have failed."""
    while workers:
        ready = wait([worker.connection for worker in workers], timeout=1.0)
        for worker in list(workers):
            try:
                if worker.connection in ready:
                    hear(session, worker, groups)
                else:
                    look_after(worker)
            except (EOFError, ChildProcessError, ConnectionError):
                workers.remove(worker)
                bury(session, worker)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)


def hear(session: pytest.Session, worker: Worker, groups: deque[list[int]]) -> None:
    """Take one message of a fork."""
    kind, value = json.loads(worker.connection.recv_bytes())
    config = session.config
    if kind == "next":
        worker.connection.send_bytes(json.dumps(groups.popleft() if groups else []).encode())
    elif kind == "start":
        worker.running = tuple(value)
        config.hook.pytest_runtest_logstart(nodeid=value[0], location=value[1])
    elif kind == "finish":
        worker.running = None
        config.hook.pytest_runtest_logfinish(nodeid=value[0], location=value[1])
    else:
        report = config.hook.pytest_report_from_serializable(config=config, data=value)
        config.hook.pytest_runtest_logreport(report=report)


def look_after(worker: Worker) -> None:
    """Notice a death that the connection does not tell: what the fork has started may hold it open."""
    done = os.waitid(os.P_PID, worker.process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if done is not None and not worker.connection.poll():
        raise ChildProcessError


def bury(session: pytest.Session, worker: Worker) -> None:
    """Let the test fail whose process has died, and all tests end: what the others of its file need is lost."""
    worker.connection.close()
    code = os.waitstatus_to_exitcode(os.waitpid(worker.process, 0)[1])
    if code == 0 and worker.running is None:
        return
    name, place = worker.running or ("a fork of the tests", ("", None, ""))
    said = f"the process of {name} ended with {code}"
    report = pytest.TestReport(name, tuple(place), {}, "failed", said, "call")
    session.config.hook.pytest_runtest_logreport(report=report)
    session.shouldfail = said


def end(workers: list[Worker]) -> None:
    """Let forks that nobody listens to end."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        while os.waitpid(worker.process, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(worker.process, signal.SIGKILL)
            time.sleep(0.02)


def _work_and_exit(session: pytest.Session, connection: Connection) -> NoReturn:
    code = 1
    try:
        teller = Teller(session.config, connection)
        _quiet(session.config)
        session.config.pluginmanager.register(teller)
        try:
            for item, following in pairwise(chain(teller.given(session.items), [None])):
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.shouldfail or session.shouldstop:
                    break
        finally:
            session._setupstate.teardown_exact(None)
        code = 0
    except (ConnectionError, EOFError, KeyboardInterrupt):
        pass  # nobody listens any more
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def _quiet(config: pytest.Config) -> None:
    """Print nothing, and capture what tests print in files of this process's own."""
    for name in ("terminalreporter", "terminalprogress"):
        if config.pluginmanager.has_plugin(name):
            config.pluginmanager.unregister(name=name)
    capture = config.pluginmanager.get_plugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    capture.suspend_global_capture()


class Teller:
    """Tells the process that started this one what its tests do."""

    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self.config, self.connection, self.process = config, connection, os.getpid()

    def tell(self, kind: str, value: object = None) -> None:
        if os.getpid() == self.process:
            self.connection.send_bytes(json.dumps([kind, value], default=str).encode())

    def given(self, items: list[pytest.Item]) -> Iterator[pytest.Item]:
        """Yield the tests that this process is to run; asks for a group when all of the last one are taken."""
        while True:
            self.tell("next")
            numbers = json.loads(self.connection.recv_bytes())
            if not numbers:
                return
            yield from (items[number] for number in numbers)

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self.tell("start", [nodeid, location])

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self.tell("finish", [nodeid, location])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.tell("report", told)
