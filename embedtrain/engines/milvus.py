"""Milvus: a server, or a file by Milvus Lite. Dense and sparse vectors; an empty sparse one is refused by it.

Source: https://milvus.io/docs.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from embedtrain.engines.address import Address
from embedtrain.engines.calls import call, load_client
from embedtrain.engines.engine import Entries, Found, Record, Row, Vectors, best_first, rows_of
from embedtrain.engines.layout import Abilities, Layout, VectorField, read_layout
from embedtrain.errors import UserError
from embedtrain.retrieval.indexes import Kind

TOKEN = "MILVUS_TOKEN"
META = "embedtrain.layout"
AT_ONCE = 1024
LONGEST = 65_535
"""Bytes of an id, a text, or metadata as JSON."""
INDEXES = {"none": "FLAT", "hnsw": "HNSW", "ivf": "IVF_FLAT"}
PARAMETERS: dict[str, dict[str, int]] = {
    "FLAT": {}, "HNSW": {"M": 16, "efConstruction": 200}, "IVF_FLAT": {"nlist": 1024},
}  # fmt: skip


ABILITIES: Abilities = {"dense": {"float32": 32_768}, "sparse": {"float32": 2**32 - 2}}


class MilvusEngine:
    """A collection: ``milvus://HOST:PORT/COLLECTION``, ``milvus://./FILE.db/COLLECTION?index=none|hnsw|ivf``."""

    abilities = ABILITIES
    takes_empty: frozenset[Kind] = frozenset()

    def __init__(self, address: Address) -> None:
        address.refuse_unknown("index")
        self.place, self._name = address.place, address.collection
        self._index = INDEXES[address.option("index", INDEXES, "none")]
        self._pymilvus = load_client("pymilvus", "pymilvus", "milvus", address.scheme)
        self._failures = (self._pymilvus.MilvusException, ValueError, RuntimeError, OSError)
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what fails is told in one line
        uri = str(address.folder) if address.is_local else f"http://{address.server}"
        token = os.environ.get(TOKEN, "").strip()
        if address.is_local:
            load_client("milvus_lite", "milvus-lite", "milvus", address.scheme)
            address.folder.parent.mkdir(parents=True, exist_ok=True)
        client = self._pymilvus.MilvusClient
        self._client = call(
            self.place, lambda: client(uri=uri, token=token, timeout=30), self._failures
        )

    def _call(self, name: str, *given: Any, **arguments: Any) -> Any:  # noqa: ANN401 - the client's own
        work = getattr(self._client, name)
        return call(self.place, lambda: work(self._name, *given, **arguments), self._failures)

    def describe(self) -> Layout | None:
        """Return what the collection's properties say."""
        if not self._call("has_collection"):
            return None
        self._call("load_collection")  # after a restart it is not in memory, and answers nothing
        properties = self._call("describe_collection").get("properties") or {}
        kept = properties.get(META)
        return read_layout(self.place, kept)

    def settle(self, layout: Layout) -> None:
        """Make the collection with its indexes, or write its properties anew."""
        if not self._call("has_collection"):
            self._create(layout)
        if layout.is_finished:
            self._call("flush")
        self._call("alter_collection_properties", properties={META: layout.model_dump_json()})

    def _create(self, layout: Layout) -> None:
        kinds, client = self._pymilvus.DataType, self._client
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=LONGEST)
        schema.add_field("text", kinds.VARCHAR, max_length=LONGEST, nullable=True)
        schema.add_field("metadata", kinds.JSON)
        schema.add_field("hash", kinds.VARCHAR, max_length=64)
        indexes = client.prepare_index_params()
        for field in layout.fields:
            if field.kind == "sparse":
                schema.add_field(field.name, kinds.SPARSE_FLOAT_VECTOR)
                indexes.add_index(field.name, "SPARSE_INVERTED_INDEX", metric_type="IP")
            else:
                schema.add_field(field.name, kinds.FLOAT_VECTOR, dim=field.dim)
                parameters = PARAMETERS[self._index]
                indexes.add_index(field.name, self._index, metric_type="IP", params=parameters)
        self._call(
            "create_collection", schema=schema, index_params=indexes, consistency_level="Strong"
        )

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """Look the ids up."""
        found: dict[str, str] = {}
        for start in range(0, len(ids), AT_ONCE):
            wanted = _among(ids[start : start + AT_ONCE])
            rows = self._call("query", filter=wanted, output_fields=["id", "hash"])
            found |= {row["id"]: row["hash"] for row in rows}
        return found

    def write(self, records: Sequence[Record]) -> None:
        """Upsert rows."""
        rows = []
        for record in records:
            document = record.document
            for what, value in (
                ("an id", document.id), ("a text", document.text or ""), ("metadata", document.metadata_json),
            ):  # fmt: skip
                if len(value.encode()) > LONGEST:
                    raise UserError(
                        f"document {document.id[:40]}", f"has {what} of more than {LONGEST:,} bytes, which Milvus refuses",
                        got=len(value.encode()), cure="Shorten it" if what != "a text" else "Load with --no-text",
                    )  # fmt: skip
            row: dict[str, Any] = {
                "id": document.id, "text": document.text, "hash": document.hash,
                "metadata": json.loads(document.metadata_json),
            }  # fmt: skip
            rows.append(row | {name: _plain(one) for name, one in record.vectors.items()})
        self._call("upsert", rows)

    def ids(self) -> Iterator[str]:
        """Read the ids, some at a time."""
        pages = self._call("query_iterator", batch_size=AT_ONCE, output_fields=["id"])
        while rows := call(self.place, pages.next, self._failures):
            yield from (row["id"] for row in rows)
        pages.close()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows."""
        for start in range(0, len(ids), AT_ONCE):
            self._call("delete", filter=_among(ids[start : start + AT_ONCE]))

    def count(self) -> int:
        """Count the rows."""
        rows = self._call("query", filter="", output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def is_exact(self, field: VectorField) -> bool:
        """Ask which index the collection was made with."""
        [index] = self._call("list_indexes", field_name=field.name)
        kind = self._call("describe_index", index)["index_type"]
        return kind in ("FLAT", "SPARSE_INVERTED_INDEX")

    def search(self, field: VectorField, queries: Vectors, num_results: int) -> list[list[Found]]:
        """Ask for all queries at once; one without an entry finds nothing."""
        asked = [_plain(row) for row in rows_of(queries)]
        real = [one for one in asked if len(one)]
        found = iter(
            self._call(
                "search", data=real, anns_field=field.name, limit=num_results, output_fields=["id", "text"],
                search_params={"metric_type": "IP"},
            )
            if real
            else ()
        )  # fmt: skip
        return [_found(next(found)) if len(one) else [] for one in asked]

    def close(self) -> None:
        """Close the client; the server of a file ends with it."""
        with suppress(*self._failures):
            self._client.close()


def _found(hits: Sequence[Any]) -> list[Found]:
    return best_first(
        [Found(hit["id"], float(hit["distance"]), hit["entity"].get("text")) for hit in hits]
    )


def _plain(row: Row) -> Any:  # noqa: ANN401 - numbers, or words and their weights
    if isinstance(row, Entries):
        return dict(zip(row.indices.tolist(), row.values.tolist(), strict=True))
    return row.tolist()


def _among(ids: Sequence[str]) -> str:
    """Return the condition; the client's own way with ids breaks at one that holds a quote."""
    return f"id in {json.dumps(list(ids), ensure_ascii=False)}"
