"""One owner for each output: while a process writes a file or a folder, others are told who does.

The lock is a file beside the output, ``.NAME.lock``, that says which process holds it. It is gone when the work
has ended; of a process that was killed it stays, and the next one takes it over.
"""

import errno
import inspect
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from embedtrain.errors import UserError
from embedtrain.leftovers import fitting, folders_above, home_of
from embedtrain.outside import writing
from embedtrain.owners import Owner, this_process

HELD = "EMBEDTRAIN_HOLDS"
"""Environment variable: the locks of this process, which those that it starts work under."""
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What a disk says that knows no locks; what is written into the file must do there."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


def owns(argument: str) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Let a function own the output that one of its arguments names, from its beginning to its end."""

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        signature = inspect.signature(function)

        @wraps(function)
        def owning(*arguments: Given.args, **settings: Given.kwargs) -> Result:
            output = signature.bind(*arguments, **settings).arguments.get(argument)
            if output is None:
                return function(*arguments, **settings)
            with owned(Path(output)):
                return function(*arguments, **settings)

        return owning

    return decorate


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Own an output while the block runs; folders above it are made.

    The process that started this one, or rank 0 of a run, may own it for this one.

    Raises:
        UserError: If another process owns it, or nothing can be written there.
    """
    with writing(path):
        lock = lock_of(path)
    held = list(filter(None, os.environ.get(HELD, "").split(os.pathsep)))
    if os.environ.get("RANK", "0") != "0" or str(lock) in held:
        yield
        return
    with _locked(path, lock):
        os.environ[HELD] = os.pathsep.join([*held, str(lock)])
        try:
            yield
        finally:
            os.environ[HELD] = os.pathsep.join(held)


def lock_of(path: Path) -> Path:
    """Return the lock file of an output."""
    real = Path(os.path.realpath(path))
    return home_of(real) / fitting(f".{real.name}", ".lock")


@contextmanager
def _locked(path: Path, lock: Path) -> Iterator[None]:
    with ExitStack() as taken:
        with writing(path):
            taken.enter_context(folders_above(Path(os.path.realpath(path))))
            descriptor = _acquire(path, lock)
            taken.callback(os.close, descriptor)
            # Removed while it is held: nobody can take over a file that is about to go.
            taken.callback(lock.unlink, missing_ok=True)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(this_process())).encode(), 0)
        yield


def _acquire(path: Path, lock: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _refuse_owned(path, lock, descriptor)
            if _is_at(lock, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the owner before us has just removed it


def _refuse_owned(path: Path, lock: Path, descriptor: int) -> None:
    is_ours = _try(descriptor)
    owner = _read(descriptor)
    if is_ours and _is_over(owner):
        return
    if owner is not None and not owner.is_here:
        cure = f"If that has ended, remove {lock}"
        raise UserError(path, "belongs to a process of another machine", got=str(owner), cure=cure)
    raise UserError(
        path,
        "is being written by another process",
        got="one that has just begun" if owner is None else str(owner),
        cure="Wait for it, stop it, or choose another output",
    )


def _is_over(owner: Owner | None) -> bool:
    """Whether the owner that a file names holds it no more, as far as this machine can tell."""
    if owner is None or owner == this_process():
        return True
    return owner.is_here and not owner.lives


def _try(descriptor: int) -> bool:
    from filelock import lock_descriptor

    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return True
        raise


def _is_at(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> Owner | None:
    """Return whom the file names; None if nobody, or half a name that a kill left."""
    try:
        return Owner(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None
