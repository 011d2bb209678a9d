"""How every file and folder of output gets its place: whole or not at all, whatever happens meanwhile.

It is made aside, in a hidden folder beside its place, written through to the disk and then renamed.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from embedtrain.errors import UserError
from embedtrain.leftovers import REPLACED, folders_above, hidden_folder, home_of, is_empty
from embedtrain.outside import NO_ROOM, REASONS, NoRoomError, free_bytes, reading, told, writing

SAID = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors whose words libraries pass on without their number."""
NEARLY_FULL = 2**16
"""Free bytes below which any failure to write is put down to the full disk."""


def default_cache() -> Path:
    """Return ``$EMBEDTRAIN_CACHE``, or ``embedtrain`` in the user's cache folder (XDG)."""
    if chosen := os.environ.get("EMBEDTRAIN_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "embedtrain"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return ``folder``; if it does not exist yet, ``build`` fills it.

    Of several processes that build it at once the first to finish wins: they build the same.
    """
    if not folder.is_dir():
        with appearing_folder(folder, replace=False) as building:
            build(building)
    return folder


def check_file(flag: str, path: Path) -> None:
    """Refuse a path that cannot be written as a file, before the work that it is for.

    Raises:
        UserError: If it is a folder, or lies below a file.
    """
    if path.is_dir():
        raise UserError(flag, "is a folder", got=str(path), cure="Name a file")
    _check_above(flag, path)


def check_folder(flag: str, path: Path) -> None:
    """Refuse a path that cannot be a folder of files, before the work that they are for.

    Raises:
        UserError: If it is a file, or lies below one.
    """
    if path.is_file():
        raise UserError(flag, "is a file", got=str(path), cure="Name a folder")
    _check_above(flag, path)


def refuse_existing(path: Path) -> None:
    """Refuse a run folder that exists and is not empty, or lies below a file.

    Raises:
        UserError: If it is so.
    """
    _check_above("--output", path)
    if path.exists() and not (path.is_dir() and is_empty(path)):
        cure = "Choose another folder, or remove it"
        if any((path / name).is_file() for name in ("recipe.yaml", "pipeline.yaml")):
            cure = f"Choose another folder, remove it, or continue it with --resume {path}"
        raise UserError("--output", "exists and is not empty", got=str(path), cure=cure)


def is_run(path: Path) -> bool:
    """Whether a folder holds a training run: its recipe, and a place for its checkpoints."""
    return (path / "recipe.yaml").is_file() and (path / "checkpoints").is_dir()


def refuse_no_run(path: Path) -> None:
    """Refuse a folder that holds no training run; it appears only when a run has begun.

    Raises:
        UserError: If it is so.
    """
    if is_run(path):
        return
    if not path.exists() or (path.is_dir() and is_empty(path)):
        cure = f"Begin with `embedtrain train RECIPE --output {path}`"
        raise UserError(path, "holds nothing to go on with: no run was begun there", cure=cure)
    cure = "Give the --output of an `embedtrain train`"
    raise UserError(path, "is not a run folder", cure=cure)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, and its folder; a failure is a :class:`UserError` and leaves nothing behind."""
    with writing(path), appearing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def read_json(path: Path, *, optional: bool = False) -> Any:  # noqa: ANN401 - the caller knows the form
    """Read a JSON file; an optional one that is missing reads as an empty object."""
    if optional and not os.path.lexists(path):
        return {}
    with reading(path):
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe waits for ever
            raise UserError(path, "is no plain file", cure="Replace it")
        text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(path, "is not valid JSON", got=str(error)) from error


def write_json(path: Path, content: object) -> None:
    """Write a JSON file as :func:`write_file` does."""
    write_file(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def appearing(path: Path, *, replace: bool = True, durable: bool = True) -> Iterator[Path]:
    """Yield where to write a file that is to appear whole or not at all; its folder is made.

    At the end of the block it gets its name; after an error nothing is left behind. Of a link the file that
    it leads to is replaced.

    Args:
        path: The file.
        replace: Take the place of one that is there at the end; else that one stays.
        durable: Write it through to the disk, so that it outlives a loss of power; what is written anew many
            times a minute need not.

    Raises:
        UserError: If the disk is full or does not take it, or something else than a file is there.
    """
    real = Path(os.path.realpath(path))
    with _aside(path, real) as partial:
        if real.exists() and not real.is_file() and not real.is_dir():
            raise UserError(path, "is no ordinary file", cure="Name another")
        yield partial
        if durable:
            _write_through(partial)
        if replace:
            partial.replace(real)
        else:
            with suppress(FileExistsError):
                os.link(partial, real)
        if durable:
            _write_through(real.parent)


@contextmanager
def appearing_folder(folder: Path, *, replace: bool = True, num_bytes: int = 0) -> Iterator[Path]:
    """Yield an empty folder to fill, which is to appear whole or not at all; see :func:`appearing`.

    Args:
        folder: Its place.
        replace: Take the place of what is there at the end; else that stays.
        num_bytes: How much it will hold at least; it is refused at once where that is not free.

    Raises:
        UserError: If the disk is full or does not take it.
    """
    real = Path(os.path.realpath(folder))
    with _aside(folder, real) as partial:
        check_room(partial.parent, num_bytes)
        partial.mkdir()
        yield partial
        for place, _, files in os.walk(partial):
            for name in (*files, ""):
                _write_through(Path(place) / name)
        if real.is_dir() and (partial.is_relative_to(real) or real.samefile(Path.cwd())):
            _move_into(partial, real)
        else:
            _put_in_place(partial, real, replace=replace)
        _write_through(real.parent)


def finish(partial: Path, path: Path) -> None:
    """Give a file its name that was written over several runs, and so in the open.

    Raises:
        OSError: If the disk does not take it.
    """
    _write_through(partial)
    partial.replace(path)
    _write_through(path.parent)


def reserve(path: Path, num_bytes: int) -> None:
    """Take so many bytes of the disk for a file from its beginning; it must be there.

    What is written into a mapped file finds its room then: a full disk would end the process by a signal.

    Raises:
        OSError: If they are not free.
    """
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(num_bytes, 1))
        except OSError as error:
            if error.errno in NO_ROOM:
                raise NoRoomError(path, num_bytes, error.errno) from error
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            check_room(path.parent, num_bytes)
            file.truncate(num_bytes)


def check_room(folder: Path, num_bytes: int) -> None:
    """Raise what a full disk raises if fewer bytes are free."""
    if free_bytes(folder) < num_bytes:
        raise NoRoomError(folder, num_bytes)


@contextmanager
def _aside(path: Path, real: Path) -> Iterator[Path]:
    """Yield the output's name in a hidden folder, which goes in any case."""
    with ExitStack() as made:
        with writing(path):
            made.enter_context(folders_above(real))
            hidden = hidden_folder(home_of(real))
        made.callback(shutil.rmtree, hidden, ignore_errors=True)
        try:
            yield hidden / real.name
        except Exception as error:  # told now: the disk is still as full as it was
            if problem := _problem(path, error, hidden):
                raise problem from error
            raise


def _problem(path: Path, error: Exception, hidden: Path) -> UserError | None:
    """Say why the output cannot be written; None for an error about something else, such as what is read."""
    if isinstance(error, UserError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        own = error.filename is None or hidden.name in str(error.filename)
        return told(path, error, "written") if own and error.errno in REASONS else None
    number = next((number for number in SAID if os.strerror(number) in str(error)), None)
    if isinstance(error, OSError | RuntimeError) and free_bytes(hidden) < NEARLY_FULL:
        number = errno.ENOSPC
    return None if number is None else told(path, OSError(number, os.strerror(number)), "written")


def _write_through(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some disks know it of files only
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def _put_in_place(partial: Path, folder: Path, *, replace: bool) -> None:
    """Rename a folder; what is there, if not an empty folder, is moved aside first and removed last."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        if replace:
            _swap(partial, folder)


def _swap(partial: Path, folder: Path) -> None:
    hidden = hidden_folder(folder.parent, REPLACED)
    folder.rename(hidden / folder.name)
    try:
        partial.rename(folder)
    except OSError:
        (hidden / folder.name).rename(folder)
        hidden.rmdir()
        raise
    shutil.rmtree(hidden, ignore_errors=True)


def _move_into(partial: Path, folder: Path) -> None:
    """Fill a folder that cannot be renamed: a disk of its own, or where this process stands."""
    for new in partial.iterdir():
        if (folder / new.name).is_dir():
            shutil.rmtree(folder / new.name)
        new.replace(folder / new.name)


def _check_above(flag: str, path: Path) -> None:
    nearest = next((folder for folder in path.parents if folder.exists()), path)  # . has none
    if not nearest.is_dir():
        raise UserError(flag, f"lies below the file {nearest}", got=str(path), cure="Name a folder")
