"""Names of what is not whole yet, and what becomes of it when the process that made it has died.

Each lies under its own name in a hidden folder that carries its owner: ``.tmp-SPACE-PID-START-NUMBER/NAME``.
What a new output takes the place of is moved into ``.old-...`` for that instant.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path

from embedtrain.owners import Owner, process_space, this_process

LONGEST_NAME = 255
"""Bytes of a file's name, on nearly every disk."""
UNFINISHED, REPLACED = ".tmp", ".old"
NAME = re.compile(r"\.(tmp|old)-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}")
HIDDEN = re.compile(rf"{NAME.pattern}|\..*\.lock")


@contextmanager
def folders_above(path: Path) -> Iterator[None]:
    """Make the folders above a path; those that are empty in the end were made in vain and go.

    Raises:
        OSError: If they cannot be made, or the path's own name is too long.
    """
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    made = [folder for folder in path.parents if not folder.exists()]
    if path.parents[len(made)].is_file():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):  # not empty: so are those above
            for folder in made:
                folder.rmdir()


def hidden_folder(parent: Path, kind: str = UNFINISHED) -> Path:
    """Make a folder of this process's own, and remove those of processes that died."""
    sweep(parent)
    me = this_process()
    name = f"{kind}-{process_space()}-{me.pid}-{me.started}-{secrets.token_hex(4)}"
    (parent / name).mkdir()
    return parent / name


@cache  # once in a process is enough
def sweep(parent: Path) -> None:
    """Remove what processes of this machine that no longer live left in a folder.

    One that died between two renames had moved the old output aside and not yet put the new one in its place:
    the old one is put back.
    """
    for left in _listed(parent):
        match = NAME.fullmatch(left.name)
        if match is None or match[2] != process_space():
            continue
        if Owner("", int(match[3]), int(match[4])).lives:
            continue
        with suppress(OSError):  # another process may be sweeping too
            for old in left.iterdir() if match[1] == "old" else ():
                if not (parent / old.name).exists():
                    old.rename(parent / old.name)
        shutil.rmtree(left, ignore_errors=True)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except PermissionError:  # one may write where one may not look
        return []


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but what processes hide there while they work."""
    return all(HIDDEN.fullmatch(one.name) for one in folder.iterdir())


def home_of(path: Path) -> Path:
    """Return the folder where work on an output is done: the one above it.

    That is no use for a folder which is a disk of its own, or lies where the user may not write.
    """
    parent = path.parent
    inside = path.is_dir() and (path.is_mount() or not os.access(parent, os.W_OK | os.X_OK))
    return path if inside else parent


def fitting(name: str, suffix: str) -> str:
    """Return ``name + suffix``, cut where it would be too long for a disk; a hash tells cut ones apart."""
    whole = os.fsencode(name + suffix)
    if len(whole) <= LONGEST_NAME:
        return name + suffix
    end = f"-{blake2b(os.fsencode(name), digest_size=8).hexdigest()}{suffix}"
    kept = os.fsencode(name)[: LONGEST_NAME - len(end)]
    return kept.decode("utf-8", "ignore") + end
