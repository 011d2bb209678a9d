"""Arrays as ``.npy`` files, whose room on the disk is taken before the first number is written."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from embedtrain.files import appearing, reserve

LONGEST_HEADER = 4096
"""Bytes before the numbers, at most: a shape and a type."""


def new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Make a file for an array and map it, to be filled.

    Raises:
        OSError: If the disk has no room for it.
    """
    kind = np.dtype(dtype)
    with path.open("wb") as file:
        _write_header(file, kind, shape)
        size = file.tell() + kind.itemsize * int(np.prod(shape, dtype=np.int64))
    reserve(path, size)
    array: NDArray[Any] = np.load(path, mmap_mode="r+", allow_pickle=False)
    return array


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a ``.npy`` file, whole or not at all; a mapped one is copied in pieces.

    Raises:
        UserError: If it cannot be written.
    """
    with appearing(path) as partial:
        place_array(partial, array)


def place_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array where it may appear by halves: into a folder that itself appears whole."""
    path.touch()
    reserve(path, array.nbytes + LONGEST_HEADER)
    with path.open("r+b") as file:
        np.save(file, array, allow_pickle=False)
        file.truncate()


def save_rows(path: Path, blocks: Iterable[NDArray[np.float32]], width: int) -> None:
    """Write blocks of rows one behind the other, however many will come: the first line is written twice."""
    kind, number = np.dtype(np.float32), 0
    with path.open("wb") as file:
        _write_header(file, kind, (0, width))
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=kind).data)
            number += len(block)
        file.seek(0)
        _write_header(file, kind, (number, width))


def _write_header(file: BinaryIO, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write the beginning of a file; it is as long for any number of rows."""
    descr = np.lib.format.dtype_to_descr(kind)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
