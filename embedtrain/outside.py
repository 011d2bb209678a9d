"""What comes from outside, and how a failure to read or write it becomes one line.

Code that reads or writes what a user gave does so inside :func:`reading` or :func:`writing`. What still gets
past them reaches the command line, which asks :func:`explain`. So a traceback means a mistake of ours.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedtrain.errors import Interrupted, RankDied, UserError
from embedtrain.memory import is_out_of_memory
from embedtrain.units import show_bytes

FAILURES = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What Python's own readers raise for bad content. Blocks are small: a mistake of ours hardly hides in them."""
LIBRARIES = frozenset(
    {
        *(
            "huggingface_hub",
            "pyarrow",
            "pyo3_runtime",
            "safetensors",
            "tokenizers",
            "yaml",
            "zlib",
        ),
        *("_csv", "sqlite3", "zipfile"),
    }
)
"""Packages whose errors are about content; named, so that none is imported to ask."""
REASONS = {
    errno.EACCES: ("may not be {done}", "Change its permissions"),
    errno.EDQUOT: ("does not fit into your disk quota", "Free some space, or choose another disk"),
    errno.EFBIG: (
        "grows beyond the largest file allowed",
        "Raise the limit, or choose another disk",
    ),
    errno.EIO: ("cannot be {done}: the disk reports an error", "Check the disk"),
    errno.EISDIR: ("is a folder", "Name a file"),
    errno.ELOOP: ("is a symbolic link that leads to itself", "Replace the link"),
    errno.EMFILE: ("cannot be opened: too many files are open", "Raise `ulimit -n`"),
    errno.ENAMETOOLONG: ("has a name too long for this disk", "Choose a shorter name"),
    errno.ENOENT: ("does not exist", "Check the path"),
    errno.ENOSPC: (
        "cannot be written: the disk is full",
        "Free some space, or choose another disk",
    ),
    errno.ENOTDIR: ("lies below a file", "Check the path"),
    errno.EPERM: ("may not be {done}", "Change its permissions"),
    errno.EROFS: ("lies on a read-only disk", "Choose another folder"),
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Of these, what can be mended with space."""


class NoRoomError(OSError):
    """The disk has fewer bytes than a file of known size needs."""

    def __init__(self, path: Path, num_bytes: int, number: int = errno.ENOSPC) -> None:
        super().__init__(number, os.strerror(number), str(path))
        self.num_bytes = num_bytes


@contextmanager
def reading(
    place: object,
    *,
    cure: str = "Check the file, or fetch it anew",
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn each failure to read ``place`` (a path, or ``path:line``) into one line for the user.

    ``also`` names what a library that reads raises besides: torch's ``RuntimeError``.

    Raises:
        UserError: Instead of what the block raised; one that it raised itself passes as it is.
    """
    with _told(place, "read", cure, also):
        yield


@contextmanager
def writing(place: object, *, cure: str = "Check the folder and free space") -> Iterator[None]:
    """Turn each failure to write ``place`` into one line for the user.

    Raises:
        UserError: Instead of what the block raised; one that it raised itself passes as it is.
    """
    with _told(place, "written", cure):
        yield


@contextmanager
def _told(
    place: object, done: str, cure: str, also: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    try:
        yield
    except (UserError, Interrupted, RankDied):
        raise
    except BaseException as error:  # tokenizers panics with what is no Exception
        if not is_failure(error) and not isinstance(error, also):
            raise
        raise told(place, error, done, cure) from error


def is_failure(error: BaseException) -> bool:
    """Whether an error may come from bad content or a disk, rather than from a mistake of ours."""
    package = type(error).__module__.partition(".")[0]
    # The tokenizers package raises bare ``Exception``.
    return isinstance(error, FAILURES) or package in LIBRARIES or type(error) is Exception


def told(place: object, error: BaseException, done: str = "read", cure: str = "") -> UserError:
    """Say in one line why ``place`` could not be read or written."""
    if isinstance(error, OSError) and error.errno in REASONS:
        problem, advice = REASONS[error.errno]
        # What is missing may be a file that the one asked for needs; a temporary name would say nothing.
        beside = done == "read" and error.filename is not None
        where = error.filename if beside and str(error.filename) not in str(place) else place
        got = _room(place, error) if error.errno in NO_ROOM else ...
        return UserError(where, problem.format(done=done), got=got, cure=advice)
    if isinstance(error, RecursionError):
        return UserError(place, "is nested too deeply", cure=cure)
    if isinstance(error, MemoryError):
        return UserError(
            place, "does not fit into memory", cure="Give a smaller file, or more memory"
        )
    if isinstance(error, UnicodeError):
        return UserError(place, "is not UTF-8", got=_bytes_of(error), cure="Save it as UTF-8")
    return UserError(place, f"cannot be {done}", got=_reason(error), cure=cure)


def explain(error: BaseException) -> UserError | None:
    """Return the line for an error that nobody put into words: of a file if it names one, of memory, else None."""
    if isinstance(error, OSError) and error.errno is not None:
        place = error.filename if error.filename is not None else "a file"
        return told(os.fspath(place) if isinstance(place, os.PathLike) else place, error, "opened")
    if isinstance(error, ValueError) and str(error) == "embedded null byte":
        return UserError("a path", "holds a NUL character", cure="Correct its name")
    if is_out_of_memory(error):
        return UserError(
            "the command",
            "ran out of memory",
            got=_reason(error),
            cure="Give less at once, or raise the limit; embedtrain check RECIPE says what training needs",
        )
    return None


def _room(place: object, error: OSError) -> object:
    """Say how much is free where ``place`` is, and how much was needed if that is known."""
    try:
        free = free_bytes(Path(str(place)))
    except OSError:
        return ...
    needed = f", {show_bytes(error.num_bytes)} needed" if isinstance(error, NoRoomError) else ""
    return f"{show_bytes(free)} free{needed}"


def free_bytes(path: Path) -> int:
    """Return how many bytes are free on the disk where a path is or would be."""
    whole = path.absolute()
    return shutil.disk_usage(next(one for one in (whole, *whole.parents) if one.exists())).free


def _bytes_of(error: UnicodeError) -> object:
    if isinstance(error, UnicodeDecodeError):
        return error.object[error.start : error.start + 8]
    return str(error)


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
