"""PostgreSQL with pgvector: ``vector``, ``halfvec``, ``bit`` and ``sparsevec`` columns; several vectors as an array.

Inner products are compared, so a vector of zeros scores 0 and never gives NaN, as cosine would.
Source: https://github.com/pgvector/pgvector.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np

from embedtrain.engines.address import Address
from embedtrain.engines.calls import call, load_client
from embedtrain.engines.engine import Entries, Found, Record, Row, Vectors, best_first, rows_of
from embedtrain.engines.layout import Abilities, Layout, VectorField, read_layout
from embedtrain.errors import UserError
from embedtrain.retrieval.indexes import Kind

AT_ONCE = 1024
TABLE = "embedtrain"
"""The table where the address names none."""
TYPES = {"float32": "vector", "float16": "halfvec", "binary": "bit"}
HNSW_DIMS = {"vector": 2000, "halfvec": 4000, "bit": 64_000}
"""The most dimensions of a column that an index can be over."""
HNSW_ENTRIES = 1000
"""The most entries of a sparse vector under an index."""
NAME_BYTES = 63
"""PostgreSQL cuts a longer name."""


ABILITIES: Abilities = {
    "dense": {"float32": 16_000, "float16": 16_000, "binary": 64_000},
    "late_interaction": {"float32": 16_000, "float16": 16_000},
    "sparse": {"float32": 10**9},
}


class PostgresEngine:
    """A table: ``postgresql://USER@HOST/DATABASE?table=docs&index=none|hnsw``; other options are libpq's."""

    abilities = ABILITIES
    takes_empty: frozenset[Kind] = frozenset({"sparse", "late_interaction"})

    def __init__(self, address: Address) -> None:
        self.place = address.place
        self._index = address.option("index", ("none", "hnsw"), "none")
        self._name = address.options.get("table", TABLE)
        if (size := len(self._name.encode())) > NAME_BYTES:
            problem, cure = "names a table by too many bytes", f"Write at most {NAME_BYTES}"
            raise UserError(self.place, problem, got=size, cure=cure)
        psycopg = load_client("psycopg", "psycopg", "pgvector", address.scheme)
        self._sql = load_client("psycopg.sql", "psycopg", "pgvector", address.scheme)
        own = {
            name: value for name, value in address.options.items() if name not in ("table", "index")
        }
        self._failures = (psycopg.Error, ValueError)
        base = quote(address.collection, safe="")
        url = f"postgresql://{address.server}/{base}?{urlencode(own, quote_via=quote)}"
        self._connection = call(
            self.place,
            lambda: psycopg.connect(url, autocommit=True, connect_timeout=10),
            self._failures,
        )
        self._table = self._sql.Identifier(self._name)
        self._types: dict[str, str] = {}
        self._dims: dict[str, int] = {}
        self._several: set[str] = set()

    def _run(self, command: str, values: Sequence[object] = (), **names: Any) -> Any:  # noqa: ANN401
        text = self._sql.SQL(command).format(table=self._table, **names)
        return call(
            self.place, lambda: self._connection.execute(text, values or None), self._failures
        )

    def describe(self) -> Layout | None:
        """Return what the table's comment says."""
        found = self._run(
            "SELECT obj_description(to_regclass(%s), 'pg_class'), to_regclass(%s) IS NOT NULL",
            [self._table.as_string(self._connection)] * 2,
        ).fetchone()
        if not found[1]:
            return None
        self._learn(layout := read_layout(self.place, found[0]))
        return layout

    def _learn(self, layout: Layout) -> None:
        self._types = {
            field.name: "sparsevec" if field.kind == "sparse" else TYPES[field.store]
            for field in layout.fields
        }
        self._dims = {field.name: field.dim for field in layout.fields}
        self._several = {field.name for field in layout.fields if field.kind == "late_interaction"}

    def settle(self, layout: Layout) -> None:
        """Make the table, or comment it anew; index its columns when all rows are there."""
        self._learn(layout)
        self._refuse_unindexed(layout)
        self._run("CREATE EXTENSION IF NOT EXISTS vector")
        # Together: a table whose maker died before its comment would be a stranger's.
        call(self.place, lambda: self._make(layout), self._failures)

    def _make(self, layout: Layout) -> None:
        with self._connection.transaction():
            columns = self._sql.SQL(", ").join(
                self._sql.SQL("{} {}").format(
                    self._sql.Identifier(field.name), self._sql.SQL(self._column_type(field))
                )
                for field in layout.fields
            )
            self._run(
                "CREATE TABLE IF NOT EXISTS {table} "
                "(id text PRIMARY KEY, text text, metadata jsonb, hash text NOT NULL, {columns})",
                columns=columns,
            )
            for field in layout.fields if layout.is_finished and self._index == "hnsw" else ():
                self._build(field)
            literal = self._sql.Literal(layout.model_dump_json())
            self._run("COMMENT ON TABLE {table} IS {comment}", comment=literal)

    def _column_type(self, field: VectorField) -> str:
        kind = f"{self._types[field.name]}({field.dim})"
        return f"{kind}[]" if field.kind == "late_interaction" else kind

    def _refuse_unindexed(self, layout: Layout) -> None:
        if self._index != "hnsw":
            return
        for field in layout.fields:
            kind = self._types[field.name]
            if field.kind == "late_interaction" or field.dim > HNSW_DIMS.get(kind, field.dim):
                raise UserError(
                    f"{self.place} index", f"is possible for up to {HNSW_DIMS.get(kind, 0):,} dimensions of one {kind}",
                    got=f"{field.kind} {field.dim}", cure="Leave ?index=hnsw out, or take --store float16 or binary",
                )  # fmt: skip

    def _build(self, field: VectorField) -> None:
        kind = self._types[field.name]
        operators = "bit_hamming_ops" if kind == "bit" else f"{kind}_ip_ops"
        self._run(
            "CREATE INDEX IF NOT EXISTS {name} ON {table} USING hnsw ({column} {operators})",
            name=self._sql.Identifier(index_name(self._name, field.name)),
            column=self._sql.Identifier(field.name),
            operators=self._sql.SQL(operators),
        )

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """Look the ids up."""
        rows = self._run("SELECT id, hash FROM {table} WHERE id = ANY(%s)", [list(ids)])
        return dict(rows.fetchall())

    def write(self, records: Sequence[Record]) -> None:
        """Insert rows, or update those that are there."""
        names = list(records[0].vectors)
        identifiers = [
            self._sql.Identifier(name) for name in ("id", "text", "metadata", "hash", *names)
        ]
        updates = [self._sql.SQL("{0} = EXCLUDED.{0}").format(one) for one in identifiers[1:]]
        casts = ["%s", "%s", "%s::jsonb", "%s", *(f"%s::{self._cast(name)}" for name in names)]
        command = self._sql.SQL(
            "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}"
        ).format(
            self._table,
            self._sql.SQL(", ").join(identifiers),
            self._sql.SQL(", ").join(map(self._sql.SQL, casts)),
            self._sql.SQL(", ").join(updates),
        )
        rows = [self._row(record, names) for record in records]

        def insert() -> None:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(command, rows)

        call(self.place, insert, self._failures)

    def _row(self, record: Record, names: Sequence[str]) -> list[object]:
        document = record.document
        values = [self._literal(name, record.vectors[name]) for name in names]
        plain = [document.id, document.text, document.metadata_json, document.hash]
        if (
            any("\x00" in (value or "") for value in plain[:2])
            or "\\u0000" in document.metadata_json
        ):
            raise UserError(
                f"document {document.id}",
                "holds a NUL character, which PostgreSQL cannot store",
                cure="Remove it",
            )
        for row in record.vectors.values() if self._index == "hnsw" else ():
            if isinstance(row, Entries) and len(row.indices) > HNSW_ENTRIES:
                raise UserError(
                    f"document {document.id}", f"has more than the {HNSW_ENTRIES:,} entries that an index of pgvector takes",
                    got=len(row.indices), cure="Leave ?index=hnsw out, or load a model with a smaller document top_k",
                )  # fmt: skip
        return [*plain, *values]

    def _cast(self, name: str) -> str:
        kind = self._types[name]
        kind = "bit varying" if kind == "bit" else kind
        return f"{kind}[]" if name in self._several else kind

    def _literal(self, name: str, row: Row) -> object:
        """Write a vector as pgvector reads it."""
        if isinstance(row, Entries):
            pairs = zip(row.indices.tolist(), row.values.tolist(), strict=True)
            entries = ",".join(
                f"{index + 1}:{value:.9g}" for index, value in pairs
            )  # counts from 1
            return f"{{{entries}}}/{self._dims[name]}"
        if self._types[name] == "bit":
            return "".join("1" if value > 0 else "0" for value in row.tolist())
        return [_numbers(one) for one in row] if row.ndim == 2 else _numbers(row)

    def ids(self) -> Iterator[str]:
        """Read the column of ids, some at a time."""
        with (
            self._connection.transaction(),
            self._connection.cursor(name="embedtrain_ids") as cursor,
        ):
            cursor.execute(self._sql.SQL("SELECT id FROM {}").format(self._table))
            yield from (row[0] for row in cursor)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows."""
        self._run("DELETE FROM {table} WHERE id = ANY(%s)", [list(ids)])

    def count(self) -> int:
        """Count the rows."""
        return int(self._run("SELECT count(*) FROM {table}").fetchone()[0])

    def is_exact(self, field: VectorField) -> bool:
        """Ask whether the column has an index."""
        name = index_name(self._name, field.name)
        command = (
            "SELECT 1 FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
            "WHERE indrelid = to_regclass(%s) AND relname = %s"
        )
        table = self._table.as_string(self._connection)
        return self._run(command, [table, name]).fetchone() is None

    def search(self, field: VectorField, queries: Vectors, num_results: int) -> list[list[Found]]:
        """Ask for each query: by negative inner product, Hamming distance of bits, or MaxSim written in SQL."""
        column = self._sql.Identifier(field.name)
        kind, results = self._types[field.name], []
        if field.kind == "late_interaction":
            distance = MAX_SIM
        else:
            distance = "{column} <~> %s::bit({dim})" if kind == "bit" else "{column} <#> %s::{cast}"
        # Of signs the inner product is the dimensions less twice those that differ.
        whole, weight = (float(field.dim), 2.0) if kind == "bit" else (0.0, 1.0)
        command = (
            f"SELECT id, text, {distance} AS distance FROM {{table}} ORDER BY distance LIMIT %s"
        )
        self._widen(num_results)
        for row in rows_of(queries):
            found = self._run(
                command, [self._literal(field.name, row), num_results], column=column,
                cast=self._sql.SQL(self._cast(field.name)), dim=self._sql.Literal(field.dim),
            ).fetchall()  # fmt: skip
            results.append(
                best_first([Found(one[0], whole - weight * float(one[2]), one[1]) for one in found])
            )
        return results

    def _widen(self, num_results: int) -> None:
        """Let an index give as many as are wanted: it looks at 40 by itself, and at 1,000 at most at once."""
        wanted = str(max(40, min(1000, num_results)))
        self._run("SELECT set_config('hnsw.ef_search', %s, false)", [wanted])
        if num_results > 1000:
            self._run("SELECT set_config('hnsw.iterative_scan', 'strict_order', false)")

    def close(self) -> None:
        """Close the connection."""
        with suppress(*self._failures):
            self._connection.close()


MAX_SIM = """coalesce((SELECT -sum(best) FROM (
    SELECT max(-(d <#> q)) AS best
    FROM unnest({column}) AS d, unnest(%s::{cast}) WITH ORDINALITY AS asked(q, place)
    GROUP BY place
) AS each_token), 'infinity')"""
"""The sum over a query's vectors of each one's best inner product with a document's; a document without any is last."""


def index_name(table: str, field: str) -> str:
    """Return the name of a column's index; a long one ends in a hash, which a cut would take from it."""
    name = f"{table}_{field}_hnsw"
    if len(name.encode()) <= NAME_BYTES:
        return name
    tail = "_" + hashlib.sha256(name.encode()).hexdigest()[:16]
    return name.encode()[: NAME_BYTES - len(tail)].decode(errors="ignore") + tail


def _numbers(row: np.ndarray) -> str:
    return f"[{','.join(f'{value:.9g}' for value in row.tolist())}]"
