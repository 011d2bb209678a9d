"""LanceDB: a folder with a table of columns. It has dense and multi-vectors, and no sparse ones.

Source: https://lancedb.github.io/lancedb/.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from embedtrain.engines.address import Address
from embedtrain.engines.calls import call, load_client
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
from embedtrain.retrieval.indexes import Kind

META = "embedtrain"
"""Key of the layout in the metadata of the column of ids."""
AT_ONCE = 1024
MOST: Mapping[Store, int] = {"float32": 65_536, "float16": 65_536}
INDEXES = ("none", "hnsw", "ivf")
REFINED = 4
"""Times the wanted results that an index proposes; whole vectors score them, for a graph holds one byte a number."""


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
        self._database = self._call(lambda: lancedb.connect(str(address.folder)))
        names = self._call(lambda: self._database.list_tables(limit=10**6).tables)
        is_there = self._name in names
        self._table: Any = None
        if is_there:
            self._table = self._call(partial(self._database.open_table, self._name))

    def _call(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - the client's own
        return call(self.place, work, self._failures)

    def describe(self) -> Layout | None:
        """Return what the table's metadata say."""
        if self._table is None:
            return None
        schema = self._call(lambda: self._table.schema)
        metadata = schema.field("id").metadata if "id" in schema.names else None
        return read_layout(self.place, (metadata or {}).get(META.encode()))

    def settle(self, layout: Layout) -> None:
        """Make the table, or write its metadata anew and build its indexes."""
        if self._table is None:
            schema = _schema(layout)
            self._table = self._call(lambda: self._database.create_table(self._name, schema=schema))
        if layout.is_finished:
            self._call(lambda: self._finish(layout))
        update = {"path": "id", "metadata": {META: layout.model_dump_json()}}
        self._call(lambda: self._table.update_field_metadata(update))

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
        def rows() -> list[dict[str, Any]]:
            query = self._table.search().select(columns).limit(self._table.count_rows())
            return list((query if condition is None else query.where(condition)).to_list())

        found: list[dict[str, Any]] = self._call(rows)
        return found

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
        self._call(lambda: merge.execute(table))

    def ids(self) -> Iterator[str]:
        """Read the column of ids."""
        yield from (row["id"] for row in self._rows(None, ["id"]))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows."""
        for start in range(0, len(ids), AT_ONCE):
            self._call(partial(self._table.delete, _among(ids[start : start + AT_ONCE])))

    def count(self) -> int:
        """Count the rows."""
        return int(self._call(self._table.count_rows))

    def is_exact(self, field: VectorField) -> bool:
        """Ask whether the column has an index."""
        indexes = self._call(self._table.list_indices)
        return not any(field.name in index.columns for index in indexes)

    def search(self, field: VectorField, queries: Vectors, num_results: int) -> list[list[Found]]:
        """Ask for each query; distances become the model's scores."""
        results = []
        several = field.kind == "late_interaction"

        def nearest(row: Row) -> Any:  # noqa: ANN401 - the client's own
            query = self._table.search(row, vector_column_name=field.name)
            query = query.distance_type("cosine" if several else "dot").limit(num_results)
            query = query if several else query.refine_factor(REFINED)
            return query.select(["id", "text", "_distance"]).to_list()

        for row in rows_of(queries):
            assert not isinstance(row, Entries)
            rows = self._call(partial(nearest, row))
            # A distance is 1 - score; of several vectors it is the sum of one for each of the query's.
            whole = len(row) if several else 1
            found = [Found(one["id"], whole - float(one["_distance"]), one["text"]) for one in rows]
            results.append(best_first(found))
        return results

    def close(self) -> None:
        """Nothing is held open."""


def _schema(layout: Layout) -> pa.Schema:
    kept = {META: layout.model_dump_json()}  # from its first instant: a table without is foreign
    columns = [pa.field("id", pa.string(), metadata=kept)]
    columns += [pa.field(name, pa.string()) for name in ("text", "metadata", "hash")]
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
