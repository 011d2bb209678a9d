"""Places that commands cannot write to: full, read-only, forbidden or frozen ones, and another's."""

import ctypes
import os
import resource
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from embedtrain.locks import HELD


@cache
def can_mount() -> bool:
    """Whether this machine lets the tests mount small disks; elsewhere the matrix is without them."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder]
        if (
            shutil.which("mount") is None
            or subprocess.run(words, capture_output=True, check=False).returncode
        ):
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@cache
def can_freeze() -> bool:
    """Whether this disk knows folders that not even the superuser may change, and the tests may make them."""
    with tempfile.TemporaryDirectory() as folder:
        return mark(Path(folder), "+i") and mark(Path(folder), "-i")


def mark(folder: Path, change: str) -> bool:
    """Set or take away an attribute of a folder, by ``chattr``; return whether it was possible."""
    words = ["chattr", change, folder]
    return (
        shutil.which("chattr") is not None
        and not subprocess.run(words, capture_output=True, check=False).returncode
    )


def freeze(folder: Path) -> None:
    """Put a folder there that not even the superuser may change."""
    (folder / "disk").mkdir()
    assert mark(folder / "disk", "+i")


def forget_locks() -> None:
    """Let this fork be a stranger to the locks of the process that it came from."""
    del os.environ[HELD]


def mount(folder: Path, options: str) -> None:
    """Put a small disk there."""
    (folder / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder / "disk"], check=True)


def forbid(folder: Path) -> None:
    """Put a folder there that may not be written to."""
    (folder / "disk").mkdir(mode=0o555)


def fill(folder: Path, name: str) -> None:
    """Put a folder of the user's there."""
    (folder / name).mkdir()
    (folder / name / "precious.txt").write_text("mine")


def limit(size: int) -> None:
    """Let no file of this process be larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def drop_privilege() -> None:
    """Let permissions hold for the superuser too: take CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH away."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, data)
    data[0] &= ~0b110
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
