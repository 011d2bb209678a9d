"""Files for engines that are fed by files: plain JSON lines, Elasticsearch, OpenSearch, Vespa.

Words of a sparse vector are keys by their numbers in the vocabulary: a word may hold a dot, which would be a path,
and two may look the same. They are compared by the inner product as the model means it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from embedtrain.engines.engine import Record, Row
from embedtrain.engines.file_engine import Line, dump, fields_of, numbers, row_of
from embedtrain.engines.layout import Abilities, Layout, Store, VectorField
from embedtrain.errors import UserError
from embedtrain.retrieval.indexes import Kind

ALL: frozenset[Kind] = frozenset({"sparse", "late_interaction"})
ANY = 2**31 - 1


JSONLINES: Abilities = {
    "dense": {"float32": ANY}, "late_interaction": {"float32": ANY}, "sparse": {"float32": ANY},
}  # fmt: skip


class JsonLines:
    """An object a line: ``id``, ``text``, ``metadata``, ``hash`` and ``vectors``."""

    abilities = JSONLINES
    takes_empty = ALL
    suffix = ".jsonl"

    def head(self, layout: Layout, name: str) -> Mapping[str, str]:  # noqa: ARG002 - a form for all
        """Nothing goes before them."""
        return {}

    def put(self, record: Record, layout: Layout, name: str) -> str:  # noqa: ARG002
        """Write the object."""
        vectors = {key: numbers(row) for key, row in record.vectors.items()}
        return dump({"id": record.document.id, **fields_of(record.document), "vectors": vectors})

    def remove(self, document_id: str, name: str) -> str:  # noqa: ARG002
        """Write that it is gone."""
        return dump({"id": document_id, "removed": True})

    def read(self, lines: Iterator[str], layout: Layout) -> Iterator[Line]:
        """Read the objects."""
        for row in map(json.loads, lines):
            found = None if "removed" in row else _vectors(row["vectors"], layout)
            yield Line(row["id"], row.get("text"), row.get("hash", ""), found)


class Bulk:
    """Lines for the ``_bulk`` interface that Elasticsearch and OpenSearch share: an action, then its document."""

    abilities: Abilities
    takes_empty: frozenset[Kind] = frozenset({"sparse"})
    suffix = ".ndjson"

    def property_of(self, field: VectorField) -> dict[str, Any]:
        """Return the mapping of a field of vectors."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the settings of the index."""
        return {}

    def head(self, layout: Layout, name: str) -> Mapping[str, str]:  # noqa: ARG002
        """Return the index's mapping, which also says what it holds."""
        properties: dict[str, Any] = {
            "text": {"type": "text"}, "metadata": {"type": "object"}, "hash": {"type": "keyword"},
        }  # fmt: skip
        properties |= {field.name: self.property_of(field) for field in layout.fields}
        meta = {"embedtrain": layout.model_dump(mode="json")}
        mapping = {**self.settings(), "mappings": {"_meta": meta, "properties": properties}}
        return {"mapping.json": json.dumps(mapping, indent=2) + "\n"}

    def put(self, record: Record, layout: Layout, name: str) -> str:  # noqa: ARG002
        """Write an action ``index``, which replaces."""
        document, size = record.document, len(record.document.id.encode())
        if size > 512:
            raise UserError(
                f"document {document.id[:40]}",
                "has an id of more than 512 bytes, which the engine refuses",
                got=size,
            )
        vectors = {key: numbers(row) for key, row in record.vectors.items()}
        action = {"index": {"_index": name, "_id": document.id}}
        return dump(action, {**fields_of(document), **vectors})

    def remove(self, document_id: str, name: str) -> str:
        """Write an action ``delete``."""
        return dump({"delete": {"_index": name, "_id": document_id}})

    def read(self, lines: Iterator[str], layout: Layout) -> Iterator[Line]:
        """Read actions and their documents."""
        for action in map(json.loads, lines):
            if "delete" in action:
                yield Line(action["delete"]["_id"])
                continue
            row = json.loads(next(lines))
            yield Line(action["index"]["_id"], row.get("text"), row["hash"], _vectors(row, layout))


ELASTICSEARCH: Abilities = {
    "dense": {"float32": 4096, "int8": 4096, "binary": 4096},
    "late_interaction": {"float32": 4096},
    "sparse": {"float32": ANY},
}


class Elasticsearch(Bulk):
    """Elasticsearch 8.18 or later: ``dense_vector``, ``rank_vectors``, ``sparse_vector`` that prunes nothing.

    Source: https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/dense-vector.
    """

    abilities = ELASTICSEARCH

    def property_of(self, field: VectorField) -> dict[str, Any]:
        """Return the mapping: the largest inner product, which also takes a vector of zeros."""
        if field.kind == "sparse":
            return {"type": "sparse_vector", "index_options": {"prune": False}}
        if field.kind == "late_interaction":
            return {"type": "rank_vectors", "dims": field.dim}
        graphs: dict[Store, str] = {"float32": "hnsw", "int8": "int8_hnsw", "binary": "bbq_hnsw"}
        return {
            "type": "dense_vector", "dims": field.dim, "index": True, "similarity": "max_inner_product",
            "index_options": {"type": graphs[field.store]},
        }  # fmt: skip


OPENSEARCH: Abilities = {
    "dense": {"float32": 16_000, "float16": 16_000},
    "late_interaction": {"float32": ANY},
    "sparse": {"float32": ANY},
}


class OpenSearch(Bulk):
    """OpenSearch 2.11 or later: ``knn_vector``, and ``rank_features`` for ``neural_sparse`` queries.

    Several vectors are kept as they are, for the script ``lateInteractionScore`` of 3.3.

    Source: https://docs.opensearch.org/latest/field-types/supported-field-types/knn-vector/,
    https://docs.opensearch.org/latest/query-dsl/specialized/script-score/.
    """

    abilities = OPENSEARCH

    def settings(self) -> dict[str, Any]:
        """Switch nearest neighbours on."""
        return {"settings": {"index": {"knn": True}}}

    def property_of(self, field: VectorField) -> dict[str, Any]:
        """Return the mapping; half precision is faiss's own."""
        if field.kind == "sparse":
            return {"type": "rank_features"}
        if field.kind == "late_interaction":
            return {"type": "object", "enabled": False}
        method: dict[str, Any] = {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"}
        if field.store == "float16":
            encoder = {"name": "sq", "parameters": {"type": "fp16"}}
            method["parameters"] = {"encoder": encoder}
        return {"type": "knn_vector", "dimension": field.dim, "method": method}


SHORT_FORMS: Mapping[Kind, str] = {
    "dense": "values", "late_interaction": "blocks", "sparse": "cells",
}  # fmt: skip
"""How Vespa's JSON calls the numbers of a tensor: indexed, mixed, mapped."""
VESPA: Abilities = {
    "dense": {"float32": ANY, "float16": ANY},
    "late_interaction": {"float32": ANY, "float16": ANY},
    "sparse": {"float32": ANY},
}


class Vespa:
    """Vespa: a feed of ``put`` operations and a schema whose rank profiles score as the model does.

    Source: https://docs.vespa.ai/en/reference/document-json-format.html.
    """

    abilities = VESPA
    takes_empty = ALL
    suffix = ".jsonl"

    def head(self, layout: Layout, name: str) -> Mapping[str, str]:
        """Return the schema."""
        if not name.isidentifier():
            raise UserError(name, "is no name of a Vespa schema", cure="Use letters, digits and _")
        fields = "".join(_vespa_field(field) for field in layout.fields)
        profiles = "".join(_vespa_profile(field) for field in layout.fields)
        plain = "".join(
            f"        field {one} type string {{ indexing: summary{more} }}\n"
            for one, more in (
                ("id", " | attribute"),
                ("text", " | index"),
                ("metadata", ""),
                ("hash", ""),
            )
        )
        return {
            f"{name}.sd": f"schema {name} {{\n    document {name} {{\n{plain}{fields}    }}\n{profiles}}}\n"
        }

    def put(self, record: Record, layout: Layout, name: str) -> str:
        """Write an operation ``put``, which replaces."""
        document = record.document
        fields: dict[str, Any] = fields_of(document) | {
            "id": document.id,
            "metadata": document.metadata_json,
        }
        for field in layout.fields:
            value = numbers(record.vectors[field.name])
            if field.kind == "late_interaction":
                value = {str(place): one for place, one in enumerate(value)}
            fields[field.name] = {SHORT_FORMS[field.kind]: value}
        return dump({"put": f"id:{name}:{name}::{document.id}", "fields": fields})

    def remove(self, document_id: str, name: str) -> str:
        """Write an operation ``remove``."""
        return dump({"remove": f"id:{name}:{name}::{document_id}"})

    def read(self, lines: Iterator[str], layout: Layout) -> Iterator[Line]:
        """Read the operations."""
        for row in map(json.loads, lines):
            if "remove" in row:
                yield Line(row["remove"].split("::", 1)[1])
                continue
            found = row["fields"]
            plain: dict[str, Any] = {}
            for field in layout.fields:
                value = found[field.name][SHORT_FORMS[field.kind]]
                plain[field.name] = (
                    list(value.values()) if field.kind == "late_interaction" else value
                )
            yield Line(found["id"], found.get("text"), found["hash"], _vectors(plain, layout))


def _vespa_type(field: VectorField) -> str:
    number = "bfloat16" if field.store == "float16" else "float"
    axes = {
        "dense": f"x[{field.dim}]",
        "late_interaction": f"token{{}}, x[{field.dim}]",
        "sparse": "word{}",
    }
    return f"tensor<{number}>({axes[field.kind]})"


def _vespa_field(field: VectorField) -> str:
    return f"        field {field.name} type {_vespa_type(field)} {{ indexing: summary | attribute }}\n"


def _vespa_profile(field: VectorField) -> str:
    query = _vespa_type(field).replace("bfloat16", "float").replace("token{}", "asked{}")
    product = f"query(q) * attribute({field.name})"
    score = f"sum({product})"
    if field.kind == "late_interaction":
        score = f"sum(reduce(sum({product}, x), max, token), asked)"
    return (
        f"    rank-profile {field.name} {{\n        inputs {{\n            query(q) {query}\n        }}\n"
        f"        first-phase {{ expression: {score} }}\n    }}\n"
    )


def _vectors(row: Mapping[str, Any], layout: Layout) -> dict[str, Row]:
    return {field.name: row_of(row[field.name], field) for field in layout.fields}
