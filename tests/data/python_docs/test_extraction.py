import sys
from pathlib import Path

import pytest

from embedtrain.data.python_docs import extraction
from embedtrain.data.python_docs.extraction import read_packages
from embedtrain.data.python_docs.python_packages import installed_packages
from embedtrain.errors import UserError

MODULE = '''"""Say what module {name} is made for, in some words.

The rest of this text tells {name} in full what it is good for and why.
"""
raise SystemExit("imported")
'''


@pytest.fixture
def site(tmp_path, install):
    folder = tmp_path / "site"
    for name in ("one", "two", "three"):
        files = {f"{name}/m{n:03d}.py": MODULE.format(name=f"{name}{n}") for n in range(70)}
        install(folder, name, "1.0", files | {f"{name}/broken.py": '"""x"""\nprint "python 2"\n'})
    return folder


@pytest.fixture
def read(site, tmp_path, monkeypatch):
    """Read the packages of the site; return what they document and the files that were opened."""

    def run(cache="cache", progress=None):
        opened = []
        inner = extraction._read_files

        def watched(files, progress):
            opened.extend(path for _, path in files)
            return inner(files, progress)

        with monkeypatch.context() as patch:
            patch.setattr(extraction, "_read_files", watched)
            docs = read_packages(installed_packages([str(site)]), tmp_path / cache, progress)
        return docs, opened

    return run


def test_several_processes_find_what_one_finds_in_the_same_order(read, monkeypatch):
    alone, _ = read("a")
    monkeypatch.setattr(extraction, "BYTES_PER_PROCESS", 1)
    monkeypatch.setattr(extraction, "num_cores", lambda: 2)
    told = []
    together, opened = read("b", lambda done, total: told.append((done, total)))
    assert together == alone
    assert told == [(n, 213) for n in range(1, 214)]
    assert len(opened) == 213
    assert [(d.package, d.num_files, d.num_unreadable, len(d.objects)) for d in alone] == [
        (name, 71, 1, 70) for name in ("one", "three", "two")
    ]
    assert alone[0].objects[3].query == "Say what module one3 is made for, in some words"


def test_one_more_package_or_another_version_rereads_only_that(read, site, install):
    first, _ = read()
    assert read() == (first, [])
    install(site, "new", "1.0", {"new/a.py": MODULE.format(name="new")})
    more, opened = read()
    assert [path.name for path in opened] == ["a.py"]
    assert [docs for docs in more if docs.package != "new"] == first
    for info in site.glob("two-1.0.dist-info"):
        meta = info / "METADATA"
        meta.write_text(meta.read_text().replace("1.0", "1.1"))
    _, opened = read()
    assert {path.parent.name for path in opened} == {"two"}


def test_code_that_reads_otherwise_rereads_all(read, monkeypatch):
    read()
    monkeypatch.setattr(extraction.inspect, "getsource", lambda module: f"other {module}")
    _, opened = read()
    assert len(opened) == 213


def test_a_process_that_dies_ends_the_reading_with_one_line(read, monkeypatch, tmp_path):
    monkeypatch.setattr(extraction, "BYTES_PER_PROCESS", 1)
    monkeypatch.setattr(extraction, "num_cores", lambda: 2)
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(UserError, match="python_docs lost one of the processes"):
        read()
    assert not list(Path(tmp_path / "cache").glob("*"))
