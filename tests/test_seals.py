import json

import pytest

from embedtrain import seals
from embedtrain.seals import SEAL, damage_of, identity_of, keep_once, seal, set_aside, spread

CONTENT = bytes(range(256)) * 40


def build(folder):
    (folder / "sub").mkdir()
    (folder / "a.arrow").write_bytes(CONTENT)
    (folder / "sub" / "b.json").write_text("{}")


def change_seal(folder):
    sealed = json.loads((folder / SEAL).read_text())
    (folder / SEAL).write_text(json.dumps(list(sealed)))


DAMAGES = {
    "truncated": lambda folder: (folder / "a.arrow").write_bytes(CONTENT[:-1]),
    "emptied": lambda folder: (folder / "a.arrow").write_bytes(b""),
    "longer": lambda folder: (folder / "a.arrow").write_bytes(CONTENT + b"x"),
    "flipped": lambda folder: (folder / "a.arrow").write_bytes(CONTENT[:-1] + b"\x00"),
    "missing": lambda folder: (folder / "sub" / "b.json").unlink(),
    "a folder": lambda folder: ((folder / "a.arrow").unlink(), (folder / "a.arrow").mkdir()),
    "no seal": lambda folder: (folder / SEAL).unlink(),
    "half a seal": lambda folder: (folder / SEAL).write_text("{"),
    "another seal": change_seal,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_not_as_it_was_sealed_is_set_aside_and_made_again(
    name, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(seals, "BLOCK", 1000)
    folder = keep_once(tmp_path / "cache", build)
    DAMAGES[name](folder)
    assert keep_once(folder, build) == folder
    assert (folder / "a.arrow").read_bytes() == CONTENT
    assert damage_of(folder) is None
    [aside] = tmp_path.glob("cache.damaged-*")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{folder} is damaged" in said
    assert aside.name in said


def test_what_is_whole_is_not_made_again(tmp_path, capsys):
    keep_once(tmp_path / "cache", build)
    keep_once(tmp_path / "cache", lambda _: pytest.fail("built again"))
    assert capsys.readouterr().err == ""


def test_of_many_blocks_some_are_read_the_first_and_the_last_among_them(monkeypatch):
    monkeypatch.setattr(seals, "BLOCKS_CHECKED", 5)
    assert spread(range(5)) == range(5)
    assert spread(range(101)) == [0, 25, 50, 75, 100]


def test_what_another_process_made_again_is_left_alone(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    seal(folder)
    before = identity_of(folder)
    folder.rename(tmp_path / "old")
    folder.mkdir()
    set_aside(folder, "is damaged", before)
    assert folder.is_dir()
    assert not list(tmp_path.glob("*.damaged-*"))
