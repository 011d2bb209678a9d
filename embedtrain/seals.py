"""Caches are not trusted: what lies on a disk may be cut off, changed or half copied.

A folder that :func:`keep_once` built holds a seal: size and checksums of each of its files. They are checked at
each opening; what does not fit is set aside and built again. A file that is as long as it was can be mapped
into memory without the signal that ends a process when a mapped file is too short.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import xxhash

from embedtrain.files import build_once
from embedtrain.progress import console

SEAL = "seal.json"
Item = TypeVar("Item")
Identity = tuple[int, int]
Block = tuple[Path, int, str]
"""A file, a number of a block of it, its checksum."""
BLOCK = 2**24
"""Bytes under one checksum."""
BLOCKS_CHECKED = 128
"""Blocks read at an opening, spread evenly where there are more: 2 GiB, read in about half a second."""


def keep_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return ``folder``, built and sealed by ``build`` if it does not exist, or is not as it was sealed."""

    def build_sealed(building: Path) -> None:
        build(building)
        seal(building)

    refuse_damaged(folder)
    return build_once(folder, build_sealed)


def refuse_damaged(folder: Path) -> None:
    """Set a folder aside that is not as it was sealed."""
    identity = identity_of(folder)
    if identity is not None and (damage := damage_of(folder)):
        set_aside(folder, damage, identity)


def seal(folder: Path) -> None:
    """Write down what the files of a folder hold."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    content = {
        path.relative_to(folder).as_posix(): [
            path.stat().st_size,
            [_checksum(path, number) for number in range(_num_blocks(path.stat().st_size))],
        ]
        for path in files
    }
    (folder / SEAL).write_text(json.dumps(content), encoding="utf-8")


def damage_of(folder: Path) -> str | None:
    """Say what is not as it was sealed; None if all is: sizes always, contents up to ``BLOCKS_CHECKED``."""
    try:
        sealed = json.loads((folder / SEAL).read_bytes())
        blocks: list[Block] = []
        for name, (size, checksums) in sealed.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                found = f"{path.stat().st_size:,}" if path.is_file() else "no"
                return f"is damaged: {name} has {found} bytes and not {size:,}"
            blocks += [(path, number, checksum) for number, checksum in enumerate(checksums)]
        for path, number, checksum in spread(blocks):
            if _checksum(path, number) != checksum:
                return f"is damaged: {path.name} does not hold what was written"
    except (OSError, ValueError, TypeError, AttributeError):
        return f"is damaged: it has no readable {SEAL}"
    return None


def set_aside(path: Path, reason: str, identity: Identity | None) -> None:
    """Rename a file or folder of a cache that is not to be trusted, and say so.

    Args:
        path: The file or folder.
        reason: What is wrong with it, to follow its path.
        identity: Its :func:`identity_of` before it was looked at: another process may have made it again.
    """
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns():x}")
    if identity is None or identity != identity_of(path):
        return
    with suppress(FileNotFoundError):  # another process did it
        path.rename(aside)
        console.print(f"{path} {reason}. It is kept as {aside.name} and made again.")


def identity_of(path: Path) -> Identity | None:
    """Return what tells a file or folder from a later one of the same name; None if there is none."""
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def checksum_of(content: bytes | memoryview) -> str:
    """Return the checksum of bytes; fast, and no protection against malice."""
    return xxhash.xxh3_64_hexdigest(content)


def _num_blocks(size: int) -> int:
    return -(-size // BLOCK)


def _checksum(path: Path, number: int) -> str:
    with path.open("rb") as file:
        file.seek(number * BLOCK, os.SEEK_SET)
        return checksum_of(file.read(BLOCK))


def spread(items: Sequence[Item]) -> Sequence[Item]:
    """Return all of a few blocks, or some of many: the first, the last and others evenly between."""
    if len(items) <= BLOCKS_CHECKED:
        return items
    last = len(items) - 1
    return [items[place * last // (BLOCKS_CHECKED - 1)] for place in range(BLOCKS_CHECKED)]
