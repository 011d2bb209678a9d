"""What dead processes left is removed, what living ones make is not, and what was whole is put back."""

import os
import signal

import pytest
from forks import fork

from embedtrain.files import appearing, appearing_folder, write_file
from embedtrain.leftovers import fitting, hidden_folder, is_empty, sweep


def die_while(work):
    def dying():
        work()
        os.kill(os.getpid(), signal.SIGKILL)

    assert fork(dying).returncode == -signal.SIGKILL
    sweep.cache_clear()  # the next output is one of another process


@pytest.fixture(autouse=True)
def _sweep_again():
    sweep.cache_clear()


def test_the_next_output_removes_what_a_dead_process_left(tmp_path):
    (tmp_path / "mine.tmp").write_text("x")
    (tmp_path / ".tmp-mine").mkdir()

    making = [appearing_folder(tmp_path / "model"), appearing(tmp_path / "x")]

    def work():
        (making[0].__enter__() / "half").touch()
        making[1].__enter__().write_text("half")

    die_while(work)
    assert len(list(tmp_path.iterdir())) == 4
    write_file(tmp_path / "y", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-mine", "mine.tmp", "y"]


def test_what_a_living_process_makes_is_left_alone(tmp_path):
    with appearing_folder(tmp_path / "model") as partial:
        (partial / "x").touch()
        done = fork(lambda: (sweep.cache_clear(), write_file(tmp_path / "y", "whole")))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "x").exists()


def test_of_another_machine_nothing_is_known(tmp_path):
    name = ".tmp-0badc0de-999999-1-12345678"
    (tmp_path / name).mkdir()
    write_file(tmp_path / "y", "whole")
    assert (tmp_path / name).exists()


def test_a_kill_between_two_renames_loses_nothing(tmp_path):
    with appearing_folder(tmp_path / "model") as old:
        (old / "old").touch()

    def work():
        aside = hidden_folder(tmp_path, ".old")
        (tmp_path / "model").rename(aside / "model")

    die_while(work)
    assert not (tmp_path / "model").exists()
    write_file(tmp_path / "y", "whole")
    assert (tmp_path / "model" / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "y"]


def test_a_kill_after_both_renames_keeps_the_new_one(tmp_path):
    def work():
        aside = hidden_folder(tmp_path, ".old")
        (aside / "model").mkdir()
        (aside / "model" / "old").touch()
        (tmp_path / "model").mkdir()

    die_while(work)
    write_file(tmp_path / "y", "whole")
    assert list((tmp_path / "model").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "y"]


def test_a_folder_is_empty_though_something_is_hidden_there(tmp_path):
    hidden_folder(tmp_path)
    (tmp_path / ".x.lock").touch()
    assert is_empty(tmp_path)
    (tmp_path / ".gitignore").touch()
    assert not is_empty(tmp_path)


def test_names_are_cut_to_what_a_disk_takes(tmp_path):
    assert fitting("x", ".lock") == "x.lock"
    names = {fitting("é" * 150 + end, ".lock") for end in ("", "a", "b")}
    assert len(names) == 3
    for name in names:
        assert len(os.fsencode(name)) <= 255
        assert name.endswith(".lock")
        (tmp_path / name).touch()
