"""Disks that are full or read-only in truth: small ones in memory, for whoever may mount them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = 4096


@contextmanager
def disk(place: Path, *, free_pages: int | None = None, size: str = "1m") -> Iterator[Path]:
    """Mount a disk at a folder; with ``free_pages`` it is filled up but for so many of 4 KiB."""
    place.mkdir(parents=True, exist_ok=True)
    if _mount("-t", "tmpfs", "-o", f"size={size}", "none", place):
        pytest.skip("mounting a disk is not allowed here")
    try:
        if free_pages is not None:
            fill(place, free_pages)
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path, free_pages: int) -> None:
    """Fill a disk up."""
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError:
            file.truncate(file.tell() - free_pages * PAGE)


def make_read_only(place: Path) -> None:
    """Let nothing be written to a mounted disk any more."""
    assert not _mount("-o", "remount,ro", place)


def names(place: Path) -> list[str]:
    """Return what a disk holds, the filler aside, hidden files and folders too."""
    found = (str(path.relative_to(place)) for path in place.rglob("*"))
    return sorted(name for name in found if name != "filler")


def _mount(*words: object) -> int:
    return subprocess.run(["mount", *map(str, words)], capture_output=True, check=False).returncode
