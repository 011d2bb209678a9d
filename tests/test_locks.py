"""An output has one owner at a time; one that died has none."""

import json
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from multiprocessing import Event

import pytest
from forks import fork

from embedtrain.errors import UserError
from embedtrain.leftovers import is_empty
from embedtrain.locks import HELD, lock_of, owned, owns
from embedtrain.owners import this_process


def own_as_a_stranger(path):
    """Own a path in a fork, as a process that nobody's owner has started."""

    def work():
        os.environ.pop(HELD, None)
        with owned(path):
            sys.stdout.write(lock_of(path).read_text())

    return fork(work)


def test_the_lock_says_who_holds_it_and_is_gone_afterwards(tmp_path):
    with owned(tmp_path / "new" / "out"):
        lock = tmp_path / "new" / ".out.lock"
        assert json.loads(lock.read_text()) == asdict(this_process())
        assert is_empty(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_told_who_owns_the_output(tmp_path):
    with owned(tmp_path / "out"):
        second = own_as_a_stranger(tmp_path / "out")
        other = own_as_a_stranger(tmp_path / "other")
        # A link and a way round lead to the same output.
        (tmp_path / "link").symlink_to(tmp_path / "out")
        linked = own_as_a_stranger(tmp_path / "link")
    for refused in (second, linked):
        assert "is being written by another process" in refused.stderr
        assert f"process {os.getpid()} on " in refused.stderr
    assert other.returncode == 0, other.stderr
    assert own_as_a_stranger(tmp_path / "out").returncode == 0


def test_of_many_processes_at_once_one_owns_the_output_at_any_time(tmp_path):
    begin = Event()

    def work():
        begin.wait()
        for _ in range(200):
            try:
                with owned(tmp_path / "out"):
                    (tmp_path / "entered").touch(exist_ok=False)
                    (tmp_path / "entered").unlink()
            except UserError as error:
                assert "another process" in str(error)  # noqa: PT017 - of a fork

    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    begin.set()
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_owner_left_is_taken_over(tmp_path):
    def work():
        with owned(tmp_path / "out"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert fork(work).returncode == -signal.SIGKILL
    left = (tmp_path / ".out.lock").read_text()
    done = own_as_a_stranger(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pid"] != json.loads(left)["pid"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host": "elsewhere"}, "another machine; .* If that has ended, remove .*[.]out[.]lock"),
        ({"pid": os.getppid()}, None),  # it lives, but has another start
        ({"pid": 2**22 + 1}, None),
    ],
)
def test_only_an_owner_known_to_be_dead_is_followed(change, message, tmp_path):
    past = replace(this_process(), started=1_000_000_000, **change)
    (tmp_path / ".out.lock").write_text(json.dumps(asdict(past)))
    if message is None:
        with owned(tmp_path / "out"):
            return
    with pytest.raises(UserError, match=message), owned(tmp_path / "out"):
        pass
    assert (tmp_path / ".out.lock").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": "x"}'])
def test_a_lock_that_says_nothing_is_taken_over(content, tmp_path):
    (tmp_path / ".out.lock").write_text(content)
    with owned(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_owner_and_those_it_starts_work_under_one_lock(tmp_path, monkeypatch):
    with owned(tmp_path / "out"), owned(tmp_path / "out"):
        assert fork(lambda: owned(tmp_path / "out").__enter__()).returncode == 0
    assert HELD not in os.environ or str(tmp_path) not in os.environ[HELD]
    monkeypatch.setenv("RANK", "1")
    with owned(tmp_path / "out"):
        assert list(tmp_path.iterdir()) == []  # rank 0 holds it for all


def test_a_function_owns_what_its_argument_names(tmp_path):
    @owns("output")
    def work(number, output=None):
        return number, output is not None and lock_of(tmp_path / "out").exists()

    assert work(1) == (1, False)
    assert work(2, tmp_path / "out") == work(2, output=str(tmp_path / "out")) == (2, True)
    assert work.__name__ == "work"


def test_a_zombie_owns_nothing(tmp_path):
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)  # it has ended, and nobody has asked for its code
    owner = replace(this_process(), pid=child)
    try:
        assert not owner.lives
    finally:
        os.waitpid(child, 0)
