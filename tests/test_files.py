"""Files and folders are complete or not there; a place that cannot hold one is refused in one line."""

from pathlib import Path

import pytest

from embedtrain.errors import UserError
from embedtrain.files import (
    build_once,
    check_file,
    check_folder,
    default_cache,
    refuse_existing,
    write_file,
)


@pytest.mark.parametrize(("content", "stored"), [("\u00e9\n", b"\xc3\xa9\n"), (b"\x00", b"\x00")])
def test_text_and_bytes_are_written_into_a_folder_that_is_made(content, stored, tmp_path):
    path = tmp_path / "new" / "folder" / "x"
    for _ in range(2):
        write_file(path, content)
        assert path.read_bytes() == stored
    assert [one.name for one in path.parent.iterdir()] == ["x"]


def test_writing_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_file(path, "old")

    def fill_up(partial, content):
        with partial.open("wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(UserError, match="cannot be written: the disk is full"):
        write_file(path, "new")
    assert [one.name for one in tmp_path.iterdir()] == ["x"]
    assert path.read_text() == "old"


def test_places_that_cannot_be_written_are_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=f"{tmp_path} is a folder. Name a file"):
        write_file(tmp_path, "x")
    with pytest.raises(UserError, match="--plot is a folder"):
        check_file("--plot", tmp_path)
    with pytest.raises(UserError, match="--output is a file"):
        check_folder("--output", file)
    for check in (check_file, check_folder):
        with pytest.raises(UserError, match=f"--output lies below the file {file}; got"):
            check("--output", file / "new" / "x")
        check("--output", tmp_path / "new" / "x")
        check("--output", Path("x"))
    check_file("--output", file)
    check_folder("--output", tmp_path)


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == Path.home() / "mine"
    monkeypatch.delenv("EMBEDTRAIN_CACHE")
    assert default_cache() == tmp_path / "embedtrain"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/embedtrain"


def test_a_folder_is_built_once(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "a").write_text("x", "utf-8")

    for _ in range(2):
        assert (build_once(tmp_path / "deep/target", build) / "a").read_text("utf-8") == "x"
    assert len(built) == 1
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep/target"]


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def build(folder):
        (folder / "half").touch()
        raise OSError("disk is full")

    with pytest.raises(OSError, match="disk is full"):
        build_once(tmp_path / "target", build)
    assert list(tmp_path.iterdir()) == []


def test_of_two_builds_at_once_the_first_to_finish_stays(tmp_path):
    target = tmp_path / "target"

    def build(folder):
        target.mkdir()
        (target / "first").touch()

    assert build_once(target, build) == target
    assert [path.name for path in target.iterdir()] == ["first"]


def test_what_another_process_finished_first_is_taken(tmp_path):
    def build(folder):
        (folder / "a").write_text("ours", "utf-8")
        (tmp_path / "target").mkdir()
        (tmp_path / "target/a").write_text("theirs", "utf-8")

    assert (build_once(tmp_path / "target", build) / "a").read_text("utf-8") == "theirs"
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]


@pytest.mark.parametrize("name", ["recipe.yaml", "pipeline.yaml", "result.json"])
def test_only_what_can_be_continued_is_said_to_be(name, tmp_path):
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="exists and is not empty") as caught:
        refuse_existing(tmp_path)
    assert ("--resume" in str(caught.value)) == (name != "result.json")
