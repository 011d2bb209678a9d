"""Ranks end with the process that started them, and nobody goes on beside living ones."""

import os
import signal
import subprocess
import sys
import time

import pytest
from launched import READY, run, wait_for_ranks

from embedtrain.errors import UserError
from embedtrain.training.ranks.ties import PARENT, refuse_living_ranks

BY_KERNEL = "ties.threading.Thread = lambda **_: sys.modules['unittest.mock'].Mock()\n"
BY_FILE = "ties.sys = type('other', (), {'platform': 'another'})\n"
HEAD = "import unittest.mock\nfrom embedtrain.training.ranks import ties\n"


def is_alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_free(run):
    """Wait until the last thread of the last rank has let go, within the five seconds that are promised."""
    deadline = time.monotonic() + 5
    while True:
        try:
            refuse_living_ranks(run)
        except UserError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


@pytest.fixture
def launcher(tmp_path):
    """Start ranks from a fork; return its id and theirs."""
    started = []

    def start(program):
        child = os.fork()
        if child == 0:
            try:
                run(tmp_path, program)
            finally:
                os._exit(0)
        started.append(child)
        started.extend(wait_for_ranks(tmp_path))
        return started

    yield start
    for process in started:
        if is_alive(process):
            os.kill(process, signal.SIGKILL)
    os.waitpid(started[0], 0)


@pytest.mark.parametrize("means", ["", BY_KERNEL, BY_FILE], ids=["both", "kernel", "file"])
def test_a_killed_launcher_takes_its_ranks_with_it(launcher, tmp_path, means):
    parent, *ranks = launcher(HEAD + means + "ties.live_with_parent()\n" + READY + "time.sleep(60)")
    assert all(map(is_alive, ranks))
    os.kill(parent, signal.SIGKILL)
    wait_until_free(tmp_path)
    assert not any(map(is_alive, ranks))


def test_nobody_goes_on_beside_living_ranks(launcher, tmp_path):
    parent, *ranks = launcher(READY + "time.sleep(60)")  # they tie themselves to nobody
    for _ in range(2):
        with pytest.raises(UserError, match=rf"has ranks that are alive; got 'process {parent} on"):
            refuse_living_ranks(tmp_path)
        with pytest.raises(UserError, match="has ranks that are alive"):
            run(tmp_path, "")
        if is_alive(parent):
            os.kill(parent, signal.SIGKILL)
            time.sleep(0.1)
    assert all(map(is_alive, ranks))
    for process in ranks:
        os.kill(process, signal.SIGKILL)
    wait_until_free(tmp_path)


def test_a_rank_whose_parent_died_before_it_began_ends():
    program = "from embedtrain.training.ranks.ties import *\nlive_with_parent()\nprint('lives')"
    environment = os.environ | {PARENT: "1 0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
