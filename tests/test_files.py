"""Files are complete or not there, and a place that cannot hold one is refused in one line."""

from pathlib import Path

import pytest

from embedtrain.errors import UserError
from embedtrain.files import check_file, check_folder, write_file


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
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        write_file(path, "new")
    assert [one.name for one in tmp_path.iterdir()] == ["x"]
    assert path.read_text() == "old"


def test_places_that_cannot_be_written_are_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="cannot be written"):
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
