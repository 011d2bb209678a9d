"""Qdrant: a server, or a folder by its client alone. Vectors are named, so that one point has several kinds.

Points have ids of Qdrant's form, made of the document's id, which the payload holds.
Source: https://qdrant.tech/documentation/concepts/.
"""

import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pickle import UnpicklingError
from typing import Any

from embedtrain.engines.address import Address
from embedtrain.engines.calls import call, load_client, refusal
from embedtrain.engines.engine import (
    Document,
    Entries,
    Found,
    Record,
    Row,
    Vectors,
    best_first,
    rows_of,
)
from embedtrain.engines.layout import Abilities, Layout, Store, VectorField, read_layout
from embedtrain.engines.qdrant_points import PointPickles
from embedtrain.outside import FAILURES
from embedtrain.retrieval.indexes import Kind

NAMESPACE = uuid.UUID("8b6cf1a2-58f5-4f6e-9f3c-2c1d2f9d3a10")
KEY = "QDRANT_API_KEY"
META = "embedtrain"
"""Key of the layout in the collection's metadata."""
AT_ONCE = 1024
"""Points asked for at once."""
STORES: Mapping[Store, int] = {
    "float32": 65_536,
    "float16": 65_536,
    "int8": 65_536,
    "binary": 65_536,
}
TIMEOUT_SECONDS = 60


ABILITIES: Abilities = {
    "dense": STORES,
    "late_interaction": STORES,
    "sparse": {"float32": 2**32 - 1, "float16": 2**32 - 1},
}


class QdrantEngine:
    """A collection of Qdrant: ``qdrant://HOST:PORT/COLLECTION``, ``qdrant+https://``, ``qdrant://./FOLDER/COLLECTION``."""

    abilities = ABILITIES
    takes_empty: frozenset[Kind] = frozenset({"sparse"})

    def __init__(self, address: Address) -> None:
        address.refuse_unknown()
        self.place, self._name = address.place, address.collection
        self._is_local = address.is_local
        client = load_client("qdrant_client", "qdrant-client", "qdrant", address.scheme)
        self._models = client.models
        exceptions = load_client(
            "qdrant_client.http.exceptions", "qdrant-client", "qdrant", address.scheme
        )
        self._down = exceptions.ResponseHandlingException
        self._failures: tuple[type[Exception], ...] = (
            exceptions.ApiException, ValueError, RuntimeError, OSError,
        )  # fmt: skip
        if self._is_local:  # of a damaged folder its client raises anything
            self._failures = (*FAILURES, RuntimeError, ImportError, sqlite3.Error, UnpicklingError)
            stored = "qdrant_client.local.persistence"
            # A folder may come from anywhere, and its client would run what a pickle asks for.
            load_client(stored, "qdrant-client", "qdrant", address.scheme).pickle = PointPickles
        try:
            self._client = client.QdrantClient(**connection(address))
        except self._failures as error:  # a folder that another process has open
            raise refusal(self.place, error) from error

    def _call(self, name: str, **arguments: Any) -> Any:  # noqa: ANN401 - the client's own
        def passes(error: Exception) -> bool:
            return getattr(error, "status_code", None) in (429, 502, 503, 504)

        work = getattr(self._client, name)
        return call(self.place, lambda: work(self._name, **arguments), self._failures, passes)

    def describe(self) -> Layout | None:
        """Return what the collection's metadata say."""
        if not self._call("collection_exists"):
            return None
        metadata = self._call("get_collection").config.metadata or {}
        return read_layout(self.place, metadata.get(META))

    def settle(self, layout: Layout) -> None:
        """Make the collection with its named vectors, or write its metadata anew."""
        metadata = {META: layout.model_dump_json()}
        if self._call("collection_exists"):
            self._call("update_collection", metadata=metadata)
            return
        sparse = [field for field in layout.fields if field.kind == "sparse"]
        others = [field for field in layout.fields if field.kind != "sparse"]
        self._call(
            "create_collection",
            vectors_config={field.name: self._parameters(field) for field in others},
            sparse_vectors_config={field.name: self._sparse(field) for field in sparse} or None,
            metadata=metadata,
        )

    def _sparse(self, field: VectorField) -> Any:  # noqa: ANN401 - the client's own
        half = self._models.Datatype.FLOAT16 if field.store == "float16" else None
        index = self._models.SparseIndexParams(datatype=half)
        return self._models.SparseVectorParams(index=index)

    def _parameters(self, field: VectorField) -> Any:  # noqa: ANN401 - the client's own
        models = self._models
        several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        quantized = {
            "int8": lambda: models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
            ),
            "binary": lambda: models.BinaryQuantization(binary=models.BinaryQuantizationConfig()),
        }.get(field.store, lambda: None)()
        return models.VectorParams(
            size=field.dim,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16 if field.store == "float16" else None,
            quantization_config=quantized,
            multivector_config=several if field.kind == "late_interaction" else None,
        )

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """Read the hashes from the payloads."""
        found: dict[str, str] = {}
        for start in range(0, len(ids), AT_ONCE):
            wanted = [point_id(one) for one in ids[start : start + AT_ONCE]]
            points = self._call("retrieve", ids=wanted, with_payload=["document_id", "hash"])
            found |= {point.payload["document_id"]: point.payload["hash"] for point in points}
        return found

    def write(self, records: Sequence[Record]) -> None:
        """Upsert points; a batch that was not acknowledged may be written again."""
        points = [
            self._models.PointStruct(
                id=point_id(record.document.id),
                vector={name: self._listed(row) for name, row in record.vectors.items()},
                payload=_payload(record.document),
            )
            for record in records
        ]
        self._call("upsert", points=points, wait=True)

    def ids(self) -> Iterator[str]:
        """Scroll through all payloads."""
        offset = None
        while True:
            points, offset = self._call(
                "scroll", limit=AT_ONCE, offset=offset, with_payload=["document_id"]
            )
            yield from (point.payload["document_id"] for point in points)
            if offset is None:
                return

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        self._call("delete", points_selector=[point_id(one) for one in ids], wait=True)

    def count(self) -> int:
        """Count exactly."""
        return int(self._call("count", exact=True).count)

    def is_exact(self, field: VectorField) -> bool:
        """Say that a server may take its graph; sparse vectors and a folder are compared one by one."""
        return self._is_local or field.kind == "sparse"

    def search(self, field: VectorField, queries: Vectors, num_results: int) -> list[list[Found]]:
        """Ask for each query; quantised vectors propose, and the whole ones score."""
        results = []
        for row in rows_of(queries):
            points = self._call(
                "query_points", query=self._listed(row), using=field.name, limit=num_results,
                with_payload=["document_id", "text"],
            ).points  # fmt: skip
            found = [
                Found(point.payload["document_id"], float(point.score), point.payload.get("text"))
                for point in points
            ]
            results.append(best_first(found))
        return results

    def _listed(self, row: Row) -> Any:  # noqa: ANN401 - the client's own
        if isinstance(row, Entries):
            values = row.values.tolist()
            return self._models.SparseVector(indices=row.indices.tolist(), values=values)
        return row.tolist()

    def close(self) -> None:
        """Close the client; a folder is then free for others."""
        with suppress(*self._failures):
            self._client.close()


def point_id(document_id: str) -> str:
    """Return the id of a document's point: Qdrant takes whole numbers and UUIDs only."""
    return str(uuid.uuid5(NAMESPACE, document_id))


def connection(address: Address) -> dict[str, Any]:
    """Return what the client needs to reach a server or a folder."""
    if address.is_local:
        return {"path": str(address.folder)}
    secure = address.scheme.endswith("+https")
    key = os.environ.get(KEY, "").strip() or None
    url = f"{'https' if secure else 'http'}://{address.server}"
    return {"url": url, "api_key": key, "timeout": TIMEOUT_SECONDS, "check_compatibility": False}


def _payload(document: Document) -> dict[str, Any]:
    payload = {
        "document_id": document.id,
        "hash": document.hash,
        "metadata": dict(document.metadata),
    }
    return payload if document.text is None else payload | {"text": document.text}
