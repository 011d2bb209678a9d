"""Sparse vectors as one file that other programs read: scipy's ``.npz``, or ``.safetensors``.

An ``.npz`` is what ``scipy.sparse.load_npz`` reads. A ``.safetensors`` file holds ``values``, ``indices`` and
``offsets``, and the number of words as ``dim`` in its metadata. Weights may be bytes, which stand for ``step`` times
as much. Beside the file, ``NAME.words.json`` lists the word of each column.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from embedtrain.errors import UserError
from embedtrain.files import appearing, write_file
from embedtrain.retrieval.sparse.posting_lists import round_to_bytes
from embedtrain.sparse_vectors import SparseVectors

ENDINGS = (".npz", ".safetensors")
DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, SafetensorError)
"""What reading another file raises."""


def save_vectors(path: Path, vectors: SparseVectors, *, as_bytes: bool = False) -> None:
    """Write vectors in the form that the file's ending names.

    Args:
        path: The file, which appears whole or not at all.
        vectors: Of all texts, in order.
        as_bytes: Round weights to multiples of 1/255 of the largest; entries that become 0 are left out.
    """
    values: np.ndarray = vectors.values
    indices, offsets, step = vectors.indices, vectors.offsets, 1.0
    if as_bytes:
        codes, step = round_to_bytes(np.asarray(values, np.float32))
        kept = np.flatnonzero(codes)
        values, indices, offsets = codes[kept], indices[kept], np.searchsorted(kept, offsets)
    with appearing(path) as partial:
        if path.suffix == ".npz":
            with partial.open("wb") as file:
                np.savez(
                    file, data=values, indices=indices, indptr=offsets, format=np.array(b"csr"),
                    shape=np.array([len(vectors), vectors.dim]), step=np.array(step),
                )  # fmt: skip
        else:
            arrays = {"values": values, "indices": indices, "offsets": offsets}
            arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            save_file(arrays, partial, {"dim": str(vectors.dim), "step": repr(step)})


def load_vectors(path: Path) -> SparseVectors:
    """Read what :func:`save_vectors` or ``scipy.sparse.save_npz`` wrote, of a CSR matrix; bytes become the weights that they stand for.

    Raises:
        UserError: If it is no such file.
    """
    try:
        if path.suffix == ".npz":
            # Opened here: numpy leaves a file open that is cut off.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                values, indices, offsets = (found[key] for key in ("data", "indices", "indptr"))
                dim = int(found["shape"][1])
                step = float(found["step"]) if "step" in found else 1.0
                if (form := found["format"].item()) != b"csr":
                    raise ValueError(f"its format is {form!r}, not b'csr'")
        else:
            with safe_open(path, "np") as found:
                values, indices, offsets = (
                    found.get_tensor(key) for key in ("values", "indices", "offsets")
                )
                dim, step = int(found.metadata()["dim"]), float(found.metadata()["step"])
    except DAMAGE as error:
        cure = "Write it with embedtrain encode and a sparse model"
        raise UserError(path, f"holds no sparse vectors ({error})", cure=cure) from error
    weights = values.astype(np.float32) * np.float32(step)
    return SparseVectors(weights, indices.astype(np.int32), offsets.astype(np.int64), dim)


def save_words(path: Path, words: Sequence[str]) -> Path:
    """Write the word of each column beside a file of vectors."""
    place = path.with_suffix(".words.json")
    write_file(place, json.dumps(list(words), ensure_ascii=False) + "\n")
    return place
