"""Where what is computed once is kept, and how it gets there whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from embedtrain.errors import UserError
from embedtrain.outside import reading, writing


def default_cache() -> Path:
    """Return ``$EMBEDTRAIN_CACHE``, or ``embedtrain`` in the user's cache folder (XDG)."""
    if chosen := os.environ.get("EMBEDTRAIN_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "embedtrain"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return ``folder``, built by ``build`` in a temporary place and renamed if it does not exist yet."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=folder.parent))
    try:
        build(building)
        building.rename(folder)
    except OSError:
        if (
            not folder.is_dir()
        ):  # another process may have finished first; what it built is the same
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
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
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(
            "--output",
            "exists and is not empty",
            got=str(path),
            cure=f"Choose another folder, remove it, or continue it with --resume {path}",
        )


def is_run(path: Path) -> bool:
    """Whether a folder holds a training run: its recipe, and a place for its checkpoints."""
    return (path / "recipe.yaml").is_file() and (path / "checkpoints").is_dir()


def refuse_no_run(path: Path) -> None:
    """Refuse a folder that holds no training run.

    Raises:
        UserError: If it is so.
    """
    if not is_run(path):
        cure = "Give the --output of an `embedtrain train`"
        raise UserError(path, "is not a run folder", cure=cure)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, which appears only when complete, and its folder; text as UTF-8.

    Raises:
        UserError: If it cannot be written; nothing is left behind then.
    """
    with writing(path), appearing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def read_json(path: Path, *, optional: bool = False) -> Any:  # noqa: ANN401 - the caller knows the form
    """Read a JSON file; an optional one that is missing reads as an empty object."""
    if optional and not path.is_file():
        return {}
    with reading(path):
        text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(path, "is not valid JSON", got=str(error)) from error


def write_json(path: Path, content: object) -> None:
    """Write a JSON file as :func:`write_file` does."""
    write_file(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yield where to write a file that is to appear whole or not at all; its folder is made.

    At the end of the block it gets its name; after an error nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):  # it is there only if writing failed half-way
            partial.unlink()


def _check_above(flag: str, path: Path) -> None:
    nearest = next((folder for folder in path.parents if folder.exists()), path)  # . has none
    if not nearest.is_dir():
        raise UserError(flag, f"lies below the file {nearest}", got=str(path), cure="Name a folder")
