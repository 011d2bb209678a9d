"""The files that commands write: refused before the work if they cannot be, and complete or not there."""

from contextlib import suppress
from pathlib import Path

from embedtrain.errors import UserError


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


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, which appears only when complete, and its folder; text as UTF-8.

    Raises:
        UserError: If it cannot be written; nothing is left behind then.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            path, f"cannot be written ({error.strerror})", cure="Check the folder and free space"
        ) from error
    finally:
        with suppress(OSError):  # it is there only if writing failed half-way
            partial.unlink()


def _check_above(flag: str, path: Path) -> None:
    nearest = next(folder for folder in path.parents if folder.exists())
    if not nearest.is_dir():
        raise UserError(flag, f"lies below the file {nearest}", got=str(path), cure="Name a folder")
