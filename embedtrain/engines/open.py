"""The one door to engines: an address names one, and only its client is imported."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from embedtrain.engines.address import Address, parse_address
from embedtrain.engines.engine import Engine
from embedtrain.engines.faiss_file import FaissEngine
from embedtrain.engines.file_engine import FileEngine
from embedtrain.engines.formats import Elasticsearch, JsonLines, OpenSearch, Vespa
from embedtrain.engines.lancedb import LanceEngine
from embedtrain.engines.milvus import MilvusEngine
from embedtrain.engines.postgres import PostgresEngine
from embedtrain.engines.qdrant import QdrantEngine
from embedtrain.errors import UserError
from embedtrain.locks import owned
from embedtrain.outside import reading

ENGINES: dict[str, Callable[[Address], Engine]] = {
    "qdrant": QdrantEngine,
    "qdrant+https": QdrantEngine,
    "lancedb": LanceEngine,
    "postgresql": PostgresEngine,
    "postgres": PostgresEngine,
    "milvus": MilvusEngine,
    "faiss": FaissEngine,
    "elasticsearch": lambda address: FileEngine(address, Elasticsearch()),
    "opensearch": lambda address: FileEngine(address, OpenSearch()),
    "vespa": lambda address: FileEngine(address, Vespa()),
    "jsonl": lambda address: FileEngine(address, JsonLines()),
}
"""Engines by the scheme of an address."""


FILES = frozenset({"faiss", "elasticsearch", "opensearch", "vespa", "jsonl", "lancedb"})
"""Engines whose collections are folders of their own."""
STORES = {"qdrant": "meta.json", "milvus": ""}
"""Engines whose address may also name a folder or a file with all its collections, and what a folder has."""


FILL = "Fill it with `embedtrain load`"


@contextmanager
def open_engine(url: str, *, writes: bool = False) -> Iterator[Engine]:
    """Open the collection that an address names; it is closed at the end of the block.

    Args:
        url: The address.
        writes: Whether documents are to be written: a folder is then this process's own meanwhile.

    Raises:
        UserError: If the address is none, there is nothing to read, the engine's client is not installed, the engine
            is down, or another process writes the same files.
    """
    address = parse_address(url, ENGINES)
    with ExitStack() as stack:
        own = own_place(address)
        if own is not None and not own.name:
            raise UserError(
                address.place, "names no folder of its own", cure=f"Write {address.scheme}://./PLACE/COLLECTION"
            )  # fmt: skip
        if own is not None and writes:
            stack.enter_context(owned(own))
        elif own is not None and not (address.folder / STORES.get(address.scheme, "")).exists():
            # Clients would make it.
            raise UserError(address.place, "is no collection", cure=FILL)
        if own is not None:
            for place in (own, own.with_name(f"{own.name}.lance")):
                refuse_pipes(place)
        engine = ENGINES[address.scheme](address)
        stack.callback(engine.close)
        yield engine


def own_place(address: Address) -> Path | None:
    """Return the folder or file that only one process may write to; None where a server keeps writers apart."""
    if address.scheme in FILES:
        return address.folder / address.collection
    return address.folder if address.scheme in STORES and address.is_local else None


def refuse_pipes(place: Path) -> None:
    """Refuse what is neither a file nor a folder: whoever opens a pipe waits for ever.

    Raises:
        UserError: With the first such thing, or a link to nowhere.
    """
    found = [Path(root) / name for root, _, names in os.walk(place) for name in names]
    for path in found if place.is_dir() or not os.path.lexists(place) else [place]:
        with reading(path):
            if not stat.S_ISREG(path.stat().st_mode):
                raise UserError(path, "is no plain file", cure="Replace it")
