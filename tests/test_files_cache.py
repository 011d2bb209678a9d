from pathlib import Path

import pytest

from embedtrain.files import build_once, default_cache


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
