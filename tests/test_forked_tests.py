"""Tests in forks give what tests in one process give, and a fork that dies is told of."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOYS = Path(__file__).parent / "toys"
FIXTURES = """
import os
import pytest

@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    yield
    place = os.environ["PLACE"]
    with open(place, "a") as file:
        file.write("torn down\\n")
"""
GOOD = """
import os
import pytest

@pytest.mark.parametrize("number", range(5))
def test_good(number, kept, record_property, tmp_path):
    record_property("number", [number, "x"])
    record_property("prints", [os.getpid(), os.fstat(1).st_ino])
    print("said \\udc80")
"""
BAD = """
import pytest, sys

def test_bad(kept):
    print("what it printed")
    assert 1 == 2

@pytest.mark.skip(reason="no")
def test_skipped(): ...

def test_warns():
    import warnings
    warnings.warn("heed me")
"""
KILLS = """
import os, signal
from pathlib import Path

def test_kills(kept):
    os.kill(os.getppid(), signal.SIGKILL)

def test_after(kept):
    Path("ran").touch()
"""
DIES = "import os\ndef test_dies(): os._exit(7)\ndef test_after(): ..."
LEAVES = """
import os, time
from contextlib import suppress

def test_leaves_a_child_that_holds_the_connection_open():
    waiting = os.getppid()
    if os.fork() == 0:
        with suppress(ProcessLookupError):
            for _ in range(600):
                os.kill(waiting, 0)
                time.sleep(0.1)
        os._exit(0)
    os._exit(0)
"""
TELLS = """
def pytest_terminal_summary(terminalreporter):
    passed = [dict(one.user_properties) for one in terminalreporter.stats.get("passed", [])]
    passed = [one for one in passed if one]
    print("noted", sorted(one["number"][0] for one in passed))
    processes, files = ({one["prints"][place] for one in passed} for place in (0, 1))
    print("a file each", len(files) == len(processes))
"""


@pytest.fixture
def run(tmp_path):
    def run(*words, **files):
        for name, text in ({"conftest": FIXTURES + TELLS} | files).items():
            (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        given = {"PLACE": str(tmp_path / "place"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        given |= {"PYTHONPATH": str(TOYS)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "forked_tests", "--forks", "2"]
        # A pipe would stay open for as long as what the tests leave.
        with (tmp_path / "said").open("w+") as said:
            streams = {"stdout": said, "stderr": said}
            code = subprocess.call(
                [*command, *words], cwd=tmp_path, env=os.environ | given, timeout=60, **streams
            )
            said.seek(0)
            return code, said.read()

    return run


@pytest.mark.parametrize("share", ["file", "test"])
def test_all_is_as_in_one_process(run, share, tmp_path):
    files = {"test_a": GOOD, "test_b": BAD, "test_c": GOOD}
    code, said = run("--forks-take", share, "--durations", "1", **files)
    assert code == 1, said
    assert "2 failed, 10 passed, 1 skipped" in said
    for words in ("assert 1 == 2", "what it printed", "UserWarning: heed me", "slowest 1 dur"):
        assert words in said
    assert "a file each True" in said
    assert "noted [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]" in said
    assert set((tmp_path / "place").read_text().splitlines()) == {"torn down"}
    assert (tmp_path / "place").read_text().count("\n") <= 2  # once a fork


def test_enough_failures_end_the_run(run):
    code, said = run("-x", test_a=BAD)
    assert code == 1
    assert "stopping after 1 failures" in said


def test_forks_that_nobody_listens_to_tear_down_and_end(run, tmp_path):
    code, _ = run(test_a=KILLS)
    assert code == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while not (tmp_path / "place").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "ran").exists()


def test_a_fork_that_dies_is_named_and_ends_the_run(run):
    code, said = run(test_a=DIES)
    assert code == 1
    assert "the process of test_a.py::test_dies ended with 7" in said


def test_a_fork_whose_child_lives_on_is_missed(run):
    code, said = run(test_a=LEAVES)
    assert code == 1
    assert "holds_the_connection_open ended with 0" in said


def test_imports_that_start_threads_are_refused(run):
    starts = "from threading import Event, Thread\nThread(name='mine', target=Event().wait, daemon=True).start()"
    code, said = run(test_a=GOOD, test_b=starts)
    assert code != 0
    assert "has started threads, which forks lack: mine" in said


def test_what_cannot_be_collected_runs_nothing(run):
    code, said = run(test_a=GOOD, test_b="import nothing_of_this_name")
    assert code == 2
    assert "Interrupted: 1 error during collection" in said
