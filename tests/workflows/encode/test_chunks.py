"""Chunks that are encoded, mined and scored within the documents that their rows name."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.contract.context import contexts_of, marked_in
from embedtrain.contract.spans import as_fields
from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.encoding.texts import encode_texts
from embedtrain.mining.judgement.rows import read_mined
from embedtrain.mining.settings import MiningConfig
from embedtrain.models.build import build_dense, load_dense, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.workflows.encode.file import encode
from embedtrain.workflows.encode.shards import encode_shards
from embedtrain.workflows.mine import mine
from embedtrain.workflows.score import score

TEXTS = [
    "the red cat", "it runs", "a small dog", "it runs", "under a tree", "it sleeps", "the house",
    "it sleeps",
]  # fmt: skip
OWNERS = ["a", "a", "b", "b", "c", "a", None, "c"]


@pytest.fixture(scope="module")
def model(bert, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("chunks")
    save_encoder(build_dense(DenseConfig(backbone=bert, spans="mean", in_context=True)), folder)
    return str(folder)


@pytest.fixture
def corpus(write_jsonl, tmp_path):
    rows = [
        {"_id": f"d{n}", "text": text} | ({"document": owner} if owner else {})
        for n, (text, owner) in enumerate(zip(TEXTS, OWNERS, strict=True))
    ]
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    write_jsonl(rows).rename(folder / "corpus.jsonl")
    write_jsonl([{"_id": "q", "text": "what runs"}]).rename(folder / "queries.jsonl")
    judged = "query-id\tcorpus-id\tscore\nq\td1\t1\n"
    (folder / "qrels" / "train.tsv").write_text(judged)
    return folder


@pytest.fixture(scope="module")
def marked(model):
    length = load_dense(model).contract.document_length
    return marked_in(contexts_of(TEXTS, OWNERS), length)


def test_files_and_shards_hold_chunks_within_documents(model, corpus, marked, tmp_path):
    expected = encode_texts(load_dense(model), marked, "document")
    path, output = corpus / "corpus.jsonl", tmp_path / "vectors.npy"
    assert encode(model, path, output) == (8, 32)
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)
    alone = encode_texts(load_dense(model), TEXTS, "document")
    assert np.abs(np.load(output) - alone).max() > 1e-2
    # the rows of a document may be in several files, and its chunks in several shards
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.jsonl").write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    table = pa.table({"text": TEXTS[5:], "document": OWNERS[5:]})
    pq.write_table(table, files / "b.parquet")
    encode_shards(model, files, tmp_path / "shards", rows_per_shard=3)
    parts = sorted((tmp_path / "shards").glob("part-*.npy"))
    assert len(parts) == 3
    np.testing.assert_allclose(np.concatenate(list(map(np.load, parts))), expected, atol=1e-6)


def test_rows_that_are_mined_hold_chunks_within_documents(model, corpus, marked, tmp_path):
    config = MiningConfig(num_negatives=6, skip_ranks=0, num_rejected=6)
    output = tmp_path / "mined"
    mine(model, str(corpus), output, config, cache=tmp_path / "cache")
    (row,) = map(json.loads, (output / "train.jsonl").read_text().splitlines())
    assert row["positives"] == [as_fields(marked[1])]
    assert as_fields(marked[0])["text"] == "the red cat\nit runs\nit sleeps"
    found = [*row["negatives"], *(one["text"] for one in rejected_of(output))]
    ids = [*row["negative_ids"], *(one["id"] for one in rejected_of(output))]
    assert found == [as_fields(marked[int(name[1:])]) for name in ids]
    assert {"d0", "d3", "d5"} <= set(ids), "of this document, and the same words in another one"
    (example,) = open_source(SourceConfig(path=str(output / "train.jsonl"))).examples()
    encoder = load_dense(model)
    query = encode_texts(encoder, [example.query], "query")
    documents = encode_texts(encoder, [*example.positives, *example.negatives], "document")
    np.testing.assert_allclose((documents @ query.T)[:, 0], example.scores, atol=1e-5)
    (judged,) = read_mined(output)
    assert judged.row.positives == list(example.positives)
    source, scored = SourceConfig(path=str(output / "train.jsonl")), tmp_path / "scored.jsonl"
    score(model, source, scored, cache=tmp_path / "cache")
    (again,) = open_source(SourceConfig(path=str(scored))).examples()
    assert again.negatives == example.negatives
    np.testing.assert_allclose(again.scores, example.scores, atol=1e-5)


def rejected_of(output):
    (row,) = map(json.loads, (output / "rejected.jsonl").read_text().splitlines())
    return row["rejected"]
