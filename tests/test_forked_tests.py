"""Tests in forks give what tests in one process give, and a fork that dies is told of."""

import os
import subprocess
import sys
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
import pytest

@pytest.mark.parametrize("number", range(5))
def test_good(number, kept, record_property, tmp_path):
    record_property("number", [number, "x"])
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
DIES = "import os\ndef test_dies(): os._exit(7)\ndef test_after(): ..."
LEAVES = """
import os, time

def test_leaves_a_child_that_holds_the_connection_open():
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    os._exit(0)
"""
TELLS = """
def pytest_terminal_summary(terminalreporter):
    passed = terminalreporter.stats.get("passed", [])
    print("noted", sorted(dict(one.user_properties)["number"][0] for one in passed if one.user_properties))
"""


@pytest.fixture
def run(tmp_path):
    def run(*words, **files):
        for name, text in ({"conftest": FIXTURES + TELLS} | files).items():
            (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        given = {"PLACE": str(tmp_path / "place"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "forked_tests", "--forks", "2", *words],
            cwd=tmp_path, env=os.environ | given | {"PYTHONPATH": str(TOYS)},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("share", ["file", "test"])
def test_all_is_as_in_one_process(run, share, tmp_path):
    done = run("--forks-take", share, "--durations", "1", test_a=GOOD, test_b=BAD, test_c=GOOD)
    assert done.returncode == 1, done.stderr
    assert "2 failed, 10 passed, 1 skipped" in done.stdout
    for said in ("assert 1 == 2", "what it printed", "UserWarning: heed me", "slowest 1 durations"):
        assert said in done.stdout
    assert "noted [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]" in done.stdout
    assert set((tmp_path / "place").read_text().splitlines()) == {"torn down"}
    assert (tmp_path / "place").read_text().count("\n") <= 2  # once a fork


def test_enough_failures_end_the_run(run, tmp_path):
    done = run("-x", test_a=BAD, test_b="def test_b(kept): ...")
    assert done.returncode == 1
    assert "stopping after 1 failures" in done.stdout
    assert (tmp_path / "place").read_text()  # what was set up is torn down


def test_a_fork_that_dies_is_named_and_ends_the_run(run):
    done = run(test_a=DIES)
    assert done.returncode == 1
    assert "the process of test_a.py::test_dies ended with 7" in done.stdout


def test_a_fork_whose_child_lives_on_is_missed(run):
    done = run(test_a=LEAVES)
    assert done.returncode == 1
    assert "holds_the_connection_open ended with 0" in done.stdout


def test_imports_that_start_threads_are_refused(run):
    starts = "from threading import Event, Thread\nThread(name='mine', target=Event().wait, daemon=True).start()"
    done = run(test_a=GOOD, test_b=starts)
    assert done.returncode != 0
    assert "has started threads, which forks lack: mine" in done.stdout + done.stderr


def test_what_cannot_be_collected_runs_nothing(run):
    done = run(test_a=GOOD, test_b="import nothing_of_this_name")
    assert done.returncode == 2
    assert "Interrupted: 1 error during collection" in done.stdout
