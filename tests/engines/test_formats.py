"""Files for engines hold what the engines' documents ask for, and the very numbers that were given."""

import json

import engine_toys as toys
import numpy as np
import pytest

from embedtrain.engines.engine import Document, Entries, Record
from embedtrain.engines.file_engine import numbers, row_of
from embedtrain.engines.formats import Elasticsearch, JsonLines, OpenSearch, Vespa
from embedtrain.errors import UserError

DENSE = np.array([0.5, -0.25], np.float32)
LATE = np.array([[1, 0], [0, 1]], np.float32)
SPARSE = Entries(np.array([3, 17], np.int32), np.array([2.5, 0.125], np.float32))
RECORD = Record(
    Document("d 1", "a text", {"year": 7}, "abc"), {"dense": DENSE, "late": LATE, "sparse": SPARSE}
)
LAYOUT = toys.layout(*toys.KINDS).model_copy(
    update={"fields": (toys.field("dense", dim=2), toys.field("late_interaction", dim=2), toys.field("sparse"))}
)  # fmt: skip
BESIDE = {"text": "a text", "metadata": {"year": 7}, "hash": "abc"}


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_holds_a_document():
    vectors = {"dense": [0.5, -0.25], "late": [[1, 0], [0, 1]], "sparse": {"3": 2.5, "17": 0.125}}
    assert lines(JsonLines().put(RECORD, LAYOUT, "docs")) == [
        {"id": "d 1", **BESIDE, "vectors": vectors}
    ]


@pytest.mark.parametrize("form", [Elasticsearch(), OpenSearch()])
def test_bulk_lines_are_an_action_and_a_document(form):
    action, document = lines(form.put(RECORD, LAYOUT, "docs"))
    assert action == {"index": {"_index": "docs", "_id": "d 1"}}
    expected = {"dense": [0.5, -0.25], "late": [[1, 0], [0, 1]], "sparse": {"3": 2.5, "17": 0.125}}
    assert document == BESIDE | expected
    assert lines(form.remove("d 1", "docs")) == [{"delete": {"_index": "docs", "_id": "d 1"}}]
    long = Record(Document("ä" * 257, "", {}, ""), {})
    with pytest.raises(UserError, match="more than 512 bytes"):
        form.put(long, LAYOUT, "docs")


@pytest.mark.parametrize(
    ("store", "graph"), [("float32", "hnsw"), ("int8", "int8_hnsw"), ("binary", "bbq_hnsw")]
)
def test_elasticsearch_is_told_of_its_fields(store, graph):
    layout = LAYOUT.model_copy(update={"fields": (toys.field("dense", store), *LAYOUT.fields[1:])})
    content = json.loads(Elasticsearch().head(layout, "docs")["mapping.json"])
    properties = content["mappings"]["properties"]
    assert properties["dense"] == {
        "type": "dense_vector", "dims": 8, "index": True, "similarity": "max_inner_product",
        "index_options": {"type": graph},
    }  # fmt: skip
    assert properties["late"] == {"type": "rank_vectors", "dims": 2}
    assert properties["sparse"] == {"type": "sparse_vector", "index_options": {"prune": False}}
    assert content["mappings"]["_meta"]["embedtrain"] == layout.model_dump(mode="json")


def test_opensearch_is_told_of_its_fields():
    layout = toys.layout("dense", "sparse", store="float16")
    content = json.loads(OpenSearch().head(layout, "docs")["mapping.json"])
    assert content["settings"] == {"index": {"knn": True}}
    method = {
        "name": "hnsw", "engine": "faiss", "space_type": "innerproduct",
        "parameters": {"encoder": {"name": "sq", "parameters": {"type": "fp16"}}},
    }  # fmt: skip
    properties = content["mappings"]["properties"]
    assert properties["dense"] == {"type": "knn_vector", "dimension": 8, "method": method}
    assert properties["sparse"] == {"type": "rank_features"}
    head = OpenSearch().head(toys.layout("late_interaction"), "docs")["mapping.json"]
    kept = json.loads(head)["mappings"]["properties"]["late"]
    assert kept == {"type": "object", "enabled": False}


def test_vespa_gets_tensors_and_a_schema():
    [operation] = lines(Vespa().put(RECORD, LAYOUT, "docs"))
    assert operation["put"] == "id:docs:docs::d 1"
    fields = operation["fields"]
    assert fields["dense"] == {"values": [0.5, -0.25]}
    assert fields["late"] == {"blocks": {"0": [1, 0], "1": [0, 1]}}
    assert fields["sparse"] == {"cells": {"3": 2.5, "17": 0.125}}
    assert json.loads(fields["metadata"]) == {"year": 7}
    assert lines(Vespa().remove("d 1", "docs")) == [{"remove": "id:docs:docs::d 1"}]
    schema = Vespa().head(LAYOUT, "docs")["docs.sd"]
    for line in (
        "schema docs {", "document docs {", "field dense type tensor<float>(x[2])",
        "field late type tensor<float>(token{}, x[2])", "field sparse type tensor<float>(word{})",
        "query(q) tensor<float>(asked{}, x[2])", "sum(query(q) * attribute(sparse))",
        "sum(reduce(sum(query(q) * attribute(late), x), max, token), asked)",
    ):  # fmt: skip
        assert line in schema
    assert schema.count("{") == schema.count("}")
    with pytest.raises(UserError, match="no name of a Vespa schema"):
        Vespa().head(LAYOUT, "my-docs")


def test_numbers_are_read_as_they_were():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 1e-3
    read = row_of(json.loads(json.dumps(numbers(values))), toys.field("dense", dim=1000))
    np.testing.assert_array_equal(read, values)
    entries = Entries(np.arange(1000, dtype=np.int32), np.abs(values))
    read = row_of(json.loads(json.dumps(numbers(entries))), toys.field("sparse", dim=1000))
    np.testing.assert_array_equal(read.values, entries.values)
    np.testing.assert_array_equal(read.indices, entries.indices)
