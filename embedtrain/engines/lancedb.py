"""LanceDB: a folder with a table of columns. It has dense and multi-vectors, and no sparse ones.

Source: https://lancedb.github.io/lancedb/.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from embedtrain.engines.address import Address
from embedtrain.engines.calls import call, load_client
from embedtrain.engines.engine import Document, Entries, Found, Record, Vectors, best_first, rows_of
from embedtrain.engines.layout import Abilities, Layout, Store, VectorField, read_layout
from embedtrain.retrieval.indexes import Kind

META = "embedtrain"
"""Key of the layout in the metadata of the column of ids."""
AT_ONCE = 1024
MOST: Mapping[Store, int] = {"float32": 65_536, "float16": 65_536}
INDEXES = ("none", "hnsw", "ivf")


ABILITIES: Abilities = {"dense": MOST, "late_interaction": {"float32": 65_536}}


class LanceEngine:
    """A table of LanceDB: ``lancedb://./FOLDER/TABLE?index=none|hnsw|ivf``."""

    abilities = ABILITIES
    takes_empty: frozenset[Kind] = frozenset()

    def __init__(self, address: Address) -> None:
        address.refuse_unknown("index")
        self.place, self._name = address.place, address.collection
        self._index = address.option("index", INDEXES, "none")
        lancedb = load_client("lancedb", "lancedb", "lancedb", address.scheme)
        self._failures = (ValueError, RuntimeError, OSError, TypeError)
        self._database = call(
            self.place, lambda: lancedb.connect(str(address.folder)), self._failures
        )
        self._table = self._open()

    def _open(self) -> Any:  # noqa: ANN401 - the client's own
        names = call(
            self.place, lambda: self._database.list_tables(limit=10**6).tables, self._failures
        )
        return self._database.open_table(self._name) if self._name in names else None

    def describe(self) -> Layout | None:
        """Return what the table's metadata say."""
        if self._table is None:
            return None
        kept = (self._table.schema.field("id").metadata or {}).get(META.encode())
        return read_layout(self.place, kept)

    def settle(self, layout: Layout) -> None:
        """Make the table, or write its metadata anew and build its indexes."""
        if self._table is None:
            schema = _schema(layout)
            self._table = call(
                self.place,
                lambda: self._database.create_table(self._name, schema=schema),
                self._failures,
            )
        if layout.is_finished:
            call(self.place, lambda: self._finish(layout), self._failures)
        update = {"path": "id", "metadata": {META: layout.model_dump_json()}}
        call(self.place, lambda: self._table.update_field_metadata(update), self._failures)

    def _finish(self, layout: Layout) -> None:
        self._table.optimize()
        dense = [field for field in layout.fields if field.kind == "dense"]
        for field in dense if self._index != "none" else ():
            kind = "IVF_HNSW_SQ" if self._index == "hnsw" else "IVF_FLAT"
            self._table.create_index(
                metric="dot", vector_column_name=field.name, index_type=kind, replace=True
            )

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """Look the ids up."""
        found: dict[str, str] = {}
        for start in range(0, len(ids), AT_ONCE):
            condition = _among(ids[start : start + AT_ONCE])
            rows = self._rows(condition, ["id", "hash"])
            found |= {row["id"]: row["hash"] for row in rows}
        return found

    def _rows(self, condition: str | None, columns: list[str]) -> list[dict[str, Any]]:
        query = self._table.search().select(columns).limit(self._table.count_rows())
        query = query if condition is None else query.where(condition)
        rows: list[dict[str, Any]] = call(self.place, query.to_list, self._failures)
        return rows

    def write(self, records: Sequence[Record]) -> None:
        """Merge rows by their ids."""
        rows = [_row(record.document) | dict(record.vectors) for record in records]
        schema = self._table.schema
        columns = [
            _cells([row[name] for row in rows], schema.field(name).type) for name in schema.names
        ]
        table = pa.Table.from_arrays(columns, schema=schema)
        merge = (
            self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        )
        call(self.place, lambda: merge.execute(table), self._failures)

    def ids(self) -> Iterator[str]:
        """Read the column of ids."""
        yield from (row["id"] for row in self._rows(None, ["id"]))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows."""
        for start in range(0, len(ids), AT_ONCE):
            work = partial(self._table.delete, _among(ids[start : start + AT_ONCE]))
            call(self.place, work, self._failures)

    def count(self) -> int:
        """Count the rows."""
        return int(self._table.count_rows())

    def search(self, field: VectorField, queries: Vectors, num_results: int) -> list[list[Found]]:
        """Ask for each query; distances become the model's scores."""
        results = []
        several = field.kind == "late_interaction"
        for row in rows_of(queries):
            assert not isinstance(row, Entries)
            query = self._table.search(row, vector_column_name=field.name)
            query = query.distance_type("cosine" if several else "dot").limit(num_results)
            rows = call(
                self.place, query.select(["id", "text", "_distance"]).to_list, self._failures
            )
            # A distance is 1 - score; of several vectors it is the sum of one for each of the query's.
            whole = len(row) if several else 1
            found = [Found(one["id"], whole - float(one["_distance"]), one["text"]) for one in rows]
            results.append(best_first(found))
        return results

    def close(self) -> None:
        """Nothing is held open."""


def _schema(layout: Layout) -> pa.Schema:
    columns = [pa.field(name, pa.string()) for name in ("id", "text", "metadata", "hash")]
    for field in layout.fields:
        number = pa.float16() if field.store == "float16" else pa.float32()
        kind: pa.DataType = pa.list_(number, field.dim)
        columns.append(pa.field(field.name, pa.list_(kind) if field.kind != "dense" else kind))
    return pa.schema(columns)


def _row(document: Document) -> dict[str, Any]:
    return {
        "id": document.id, "text": document.text, "metadata": document.metadata_json, "hash": document.hash,
    }  # fmt: skip


def _cells(column: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return a column; vectors in the numbers that it keeps."""
    number = kind
    while isinstance(number, pa.ListType | pa.FixedSizeListType):
        number = number.value_type
    if number is kind:
        return pa.array(column, kind)
    vectors = [np.asarray(one).astype(number.to_pandas_dtype()) for one in column]
    return pa.array([list(one) if one.ndim == 2 else one for one in vectors], kind)


def _among(ids: Sequence[str]) -> str:
    quoted = ", ".join("'" + one.replace("'", "''") + "'" for one in ids)
    return f"id IN ({quoted})"
