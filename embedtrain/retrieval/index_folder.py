"""Folders that hold an index, or vectors alone: ``.npy`` files, faiss files and one JSON manifest."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embedtrain.arrays import place_array
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder
from embedtrain.leftovers import is_empty
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

MANIFEST = "index.json"
FORMAT = 1
"""Raised when a folder of an older version can no longer be read."""
ARRAYS = ("values", "lengths", "ids", "cls")
SPARSE_ARRAYS = ("values", "indices", "offsets")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to fill; it takes the place of ``folder`` once the block ends without an error.

    An index that was there before is replaced, and stays complete until then. Anything else that is there
    is left alone.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and not is_empty(folder):
        raise UserError(
            folder, "holds other files than an index", cure="Name a new or an empty folder"
        )
    with appearing_folder(folder) as partial:
        yield partial


def write_manifest(folder: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Say what the folder holds."""
    text = json.dumps({"format": FORMAT, "kind": kind, **content}, indent=2, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path, kind: str | None = None, *needed: str) -> dict[str, Any]:
    """Read what a folder says of itself.

    An index of another ``kind`` is refused, and one that lacks the ``needed`` keys.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            folder, f"is not a saved index (no readable {MANIFEST})", cure="Build the index again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            folder / MANIFEST,
            f"is not of format {FORMAT}",
            got=content.get("format") if isinstance(content, dict) else content,
            cure="Build the index again with this version",
        )
    if kind is not None and content.get("kind") != kind:
        raise UserError(
            folder,
            f"does not hold an index of kind {kind}",
            got=content.get("kind"),
            cure="Load it as the kind that it is",
        )
    if missing := [key for key in ("kind", *needed) if key not in content]:
        raise UserError(
            folder / MANIFEST, f"lacks {', '.join(missing)}", cure="Build the index again"
        )
    return content


def write_vectors(folder: Path, vectors: TokenVectors, *, values: str = "values") -> None:
    """Write vectors as one ``.npy`` file for each array; memory-mapped ones are copied in pieces."""
    for name in ARRAYS:
        array, file = getattr(vectors, name), values if name == "values" else name
        if array is not None:
            place_array(folder / f"{file}.npy", array)


def read_vectors(folder: Path, *, exact_match: bool, values: str = "values") -> TokenVectors:
    """Map the vectors of a folder into memory, read-only; ``values`` is the name of their file."""
    numbers, lengths = (read_array(folder / f"{name}.npy") for name in (values, "lengths"))
    optional = {
        name: read_array(path) for name in ARRAYS[2:] if (path := folder / f"{name}.npy").is_file()
    }
    return TokenVectors(numbers, lengths, **optional, exact_match=exact_match)


def write_sparse(folder: Path, vectors: SparseVectors) -> None:
    """Write sparse vectors as three ``.npy`` files; their manifest has to say ``dim``."""
    for name in SPARSE_ARRAYS:
        place_array(folder / f"{name}.npy", getattr(vectors, name))


def read_sparse(folder: Path, dim: int) -> SparseVectors:
    """Map the sparse vectors of a folder into memory, read-only."""
    values, indices, offsets = (read_array(folder / f"{name}.npy") for name in SPARSE_ARRAYS)
    return SparseVectors(values, indices, offsets, dim)


def save_sparse(vectors: SparseVectors, folder: Path) -> None:
    """Write sparse vectors into a folder, which appears only when complete."""
    with new_folder(folder) as partial:
        write_sparse(partial, vectors)
        write_manifest(partial, "sparse", {"dim": vectors.dim})


def load_sparse(folder: Path) -> SparseVectors:
    """Map what :func:`save_sparse` wrote into memory."""
    return read_sparse(folder, read_manifest(folder, "sparse", "dim")["dim"])


def read_array(path: Path, mode: Literal["r", "c"] = "r") -> np.ndarray:
    """Map one array into memory; a missing or damaged file is the user's mistake.

    Mode ``r`` is read-only; ``c`` may be written to, which changes no file: torch takes such arrays without a copy.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(path, f"cannot be read ({error})", cure="Build the index again") from error
    return array
