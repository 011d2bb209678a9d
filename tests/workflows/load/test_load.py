"""Loading documents from the command line: again, after an end, with other models, and with mistakes."""

import json

import numpy as np
import pytest
from late_toys import VARIANTS, encoder
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.encoding.cache import embed_once
from embedtrain.engines.file_engine import FileEngine
from embedtrain.engines.open import open_engine
from embedtrain.errors import UserError
from embedtrain.models.build import save_encoder
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.workflows.load import load as workflow
from embedtrain.workflows.load.load import Wish, load
from embedtrain.workflows.load.search import EngineSearcher
from embedtrain.workflows.search import Searcher

TEXTS = ["red cat runs", "the small blue bird sleeps near a large tree", "a dog", "green house"]


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def rows(texts=TEXTS, **changes):
    return [
        {"_id": f"d {number}", "title": "", "text": text, "metadata": {"year": 2000 + number}} | changes
        for number, text in enumerate(texts)
    ]  # fmt: skip


def refused(*arguments):
    done = run(*arguments)
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


@pytest.mark.filterwarnings("ignore")  # of the client's own libraries
def test_two_models_share_a_collection_that_is_loaded_searched_and_loaded_again(
    bert, sparse_model, tmp_path, write_jsonl
):
    pytest.importorskip("qdrant_client")
    corpus, url = write_jsonl(rows(), "corpus.jsonl"), f"qdrant://{tmp_path}/store/docs"
    words = ["load", bert, corpus, "--into", url, "--with", sparse_model]
    done = run(*words)
    assert done.exit_code == 0, done.exception
    assert "4 documents; 4 written, 0 there already" in done.output
    assert "dense: 100.0%" in done.output
    assert "sparse: 100.0%" in done.output
    assert "4 documents; 0 written, 4 there already" in run(*words).output
    for model in (bert, sparse_model):
        done = run("search", model, TEXTS[1], "--index", url, "--top", "2")
        assert done.exit_code == 0, done.exception
        here = run("search", model, TEXTS[1], "--data", corpus, "--top", "2").output.splitlines()
        assert done.output.splitlines()[1::2] == here[1::2]
        assert done.output.startswith("1. d 1 ")
    changed = [*rows()[:2], rows()[2] | {"text": "a cat"}, {"_id": 9, "text": "new"}]
    write_jsonl(changed, "corpus.jsonl")
    done = run(*words, "--prune")
    assert "4 documents; 2 written, 2 there already, 1 removed" in done.output, done.exception


def test_search_in_files_equals_search_here(bert, beir, tmp_path):
    url = f"jsonl://{tmp_path}/docs"
    done = load([bert], str(beir), url)
    assert (done.count, done.written, done.agreement[0].num_queries) == (30, 30, 10)
    assert done.agreement[0].overlap == 1
    assert done.agreement[0].difference < 1e-6
    here = Searcher(bert, str(beir))
    with EngineSearcher(bert, url) as there:
        for query in TEXTS:
            ours, found = here.search(query, 7), there.search(query, 7)
            assert [one.document_id for one in found] == [one.document_id for one in ours]
            assert [one.text for one in found] == [one.text for one in ours]
            assert [one.score for one in found] == pytest.approx(
                [one.score for one in ours], abs=1e-6
            )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scheme", ["jsonl", "vespa", "lancedb"])
def test_models_of_several_vectors_are_loaded(scheme, bert, beir, tmp_path):
    if scheme == "lancedb":
        pytest.importorskip("lancedb")
    save_encoder(encoder(bert), tmp_path / "late")
    url = f"{scheme}://{tmp_path}/docs"
    done = load([str(tmp_path / "late")], str(beir), url, Wish(num_queries=4))
    assert (done.count, done.agreement[0].field, done.agreement[0].overlap) == (30, "late", 1)
    assert done.agreement[0].difference < 1e-5


def test_a_model_with_more_than_vectors_is_refused(bert, beir, tmp_path):
    save_encoder(encoder(bert, **VARIANTS["colberter"]), tmp_path / "late")
    message = refused("load", tmp_path / "late", beir, "--into", f"jsonl://{tmp_path}/docs")
    assert "--into cannot hold the vectors" in message


def test_a_second_model_orders_what_the_engine_finds(bert, cross_encoder, tmp_path, write_jsonl):
    corpus, url = write_jsonl(rows(), "corpus.jsonl"), f"jsonl://{tmp_path}/docs"
    assert run("load", bert, corpus, "--into", url).exit_code == 0
    words = ["search", bert, "cat", "--rerank", cross_encoder, "--depth", "3"]
    there = run(*words, "--index", url).output
    here = run(*words, "--data", corpus).output
    assert there
    scores = [[line.split()[-1] for line in text.splitlines()[::2]] for text in (there, here)]
    assert scores[0][:3] == scores[1][:3]
    assert run("load", bert, corpus, "--into", f"{url}2", "--no-text").exit_code == 0
    assert "has none" in refused(*words, "--index", f"{url}2")


def test_a_loading_that_was_ended_goes_on_and_is_not_searched_before(
    bert, tmp_path, write_jsonl, monkeypatch
):
    corpus, url = write_jsonl(rows(), "corpus.jsonl"), f"jsonl://{tmp_path}/docs"
    monkeypatch.setattr(workflow, "BATCH_BYTES", 1)
    write, calls = FileEngine.write, []

    def fail_at_third(self, records):
        calls.append(records)
        if len(calls) == 3:
            raise UserError(self.place, "is down")
        write(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(FileEngine, "write", fail_at_third)
        assert "is down" in refused("load", bert, corpus, "--into", url)
    message = refused("search", bert, "cat", "--index", url)
    assert "is half filled" in message
    assert "2 documents" in message
    done = run("load", bert, corpus, "--into", url)
    assert "4 documents; 2 written, 2 there already" in done.output
    assert run("search", bert, "cat", "--index", url).exit_code == 0


def test_what_does_not_belong_into_a_collection_is_refused(
    bert, sparse_model, tmp_path, write_jsonl
):
    corpus, url = write_jsonl(rows(), "corpus.jsonl"), f"jsonl://{tmp_path}/docs"
    words = ["load", bert, corpus, "--into", url]
    assert run(*words).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "docs").iterdir()}
    for message, arguments in {
        "holds the vectors dense; got 'sparse'": ["load", sparse_model, corpus, "--into", url],
        "was loaded with texts": [*words, "--no-text"],
        "cannot store dense so; got 'int8'": [*words, "--store", "int8"],
        "holds vectors of other weights": ["search", sparse_model, "cat", "--index", url],
        "names a model twice": [*words, "--with", bert],
        "names no engine": ["load", bert, corpus, "--into", "mongo://host/docs"],
        "names no collection": ["load", bert, corpus, "--into", "jsonl://"],
        "is no collection": ["search", bert, "cat", "--index", f"{url}2"],
        "has an unknown option; got 'fast'": ["load", bert, corpus, "--into", f"{url}?fast=1"],
        "are settled where": ["search", bert, "cat", "--index", url, "--data", corpus],
    }.items():  # fmt: skip
        assert message in refused(*arguments)
    assert before == {path: path.read_bytes() for path in (tmp_path / "docs").iterdir()}


def test_other_weights_are_refused_by_their_hash(bert, tmp_path, write_jsonl):
    from embedtrain.models.build import build_encoder
    from embedtrain.models.dense.config import DenseConfig

    corpus, url = write_jsonl(rows(), "corpus.jsonl"), f"jsonl://{tmp_path}/docs"
    assert run("load", bert, corpus, "--into", url).exit_code == 0
    config = DenseConfig(kind="dense", backbone=bert, query={"prompt": "query: "})
    save_encoder(build_encoder(config, "cpu"), tmp_path / "other")
    message = refused("load", tmp_path / "other", corpus, "--into", url)
    assert f"has the model {bert}, of other weights or contract" in message


def test_rows_without_sense_are_refused_before_any_work(bert, tmp_path, write_jsonl):
    url = f"jsonl://{tmp_path}/docs"
    for message, given in {
        "document 5 has the id of an earlier one; got 'd 0'": [*rows(), rows()[0]],
        "must be a text or a whole number; got 1.5": [{"_id": 1.5, "text": "a"}],
        "holds something other than a text": [{"_id": "a", "text": 7}],
    }.items():
        corpus = write_jsonl(given, "corpus.jsonl")
        assert message in refused("load", bert, corpus, "--into", url)
    assert not (tmp_path / "docs").exists()


@pytest.mark.filterwarnings("ignore")
def test_an_engine_that_is_down_is_one_line(bert, write_jsonl):
    pytest.importorskip("psycopg")
    corpus = write_jsonl(rows(), "corpus.jsonl")
    for url in ("postgresql://me:secret@localhost:1/base", "qdrant://localhost:1/docs"):
        message = refused("load", bert, corpus, "--into", url)
        assert "cannot be reached" in message
        assert "secret" not in message
        assert "Start the engine" in message


def test_an_engine_that_scores_otherwise_is_refused(bert, tmp_path, write_jsonl, monkeypatch):
    corpus, url = write_jsonl(rows(), "corpus.jsonl"), f"jsonl://{tmp_path}/docs"
    search = FileEngine.search
    monkeypatch.setattr(
        FileEngine, "search", lambda self, field, queries, wanted: search(self, field, queries * 1.01, wanted)
    )  # fmt: skip
    assert "scores documents otherwise than the model" in refused(
        "load", bert, corpus, "--into", url
    )


def test_documents_of_nothing_are_left_out_where_an_engine_refuses_them(
    sparse_model, tmp_path, write_jsonl, monkeypatch
):
    def with_nothing(*arguments, **settings):
        found = embed_once(*arguments, **settings)
        values = found.dense()
        values[1] = 0
        return SparseVectors.of_dense(values)

    monkeypatch.setattr(workflow, "embed_once", with_nothing)
    corpus = str(write_jsonl(rows(), "corpus.jsonl"))
    kept = load([sparse_model], corpus, f"jsonl://{tmp_path}/kept")
    assert (kept.count, kept.zeros, kept.left_out) == (4, 1, [])
    monkeypatch.setattr("embedtrain.engines.formats.JsonLines.takes_empty", frozenset())
    done = load([sparse_model], corpus, f"jsonl://{tmp_path}/docs", Wish(num_queries=2))
    assert (done.count, done.zeros, done.left_out) == (3, 0, ["d 1"])
    assert done.agreement[0].overlap == 1


def test_metadata_and_ids_are_kept(bert, tmp_path, write_jsonl):
    given = [
        {"_id": "ä/b", "title": "One", "text": "cat", "metadata": {"tags": ["x"]}, "year": 7},
        {"text": "b"},
    ]
    url = f"jsonl://{tmp_path}/docs"
    load([bert], str(write_jsonl(given, "corpus.jsonl")), url)
    lines = (tmp_path / "docs" / "part-00000.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first["metadata"] == {"tags": ["x"], "title": "One", "year": 7}
    assert (first["id"], first["text"], second["id"]) == ("ä/b", "One cat", "2")
    assert np.linalg.norm(first["vectors"]["dense"]) == pytest.approx(1)
    with open_engine(url) as engine:
        assert engine.describe().fields[0].contract["query_length"]


def test_a_damaged_part_is_seen(bert, tmp_path, write_jsonl):
    corpus, url = write_jsonl(rows(), "corpus.jsonl"), f"jsonl://{tmp_path}/docs"
    assert run("load", bert, corpus, "--into", url).exit_code == 0
    path = tmp_path / "docs" / "part-00000.jsonl"
    path.write_text(path.read_text().replace("cat", "dog"))
    assert "is damaged" in refused("search", bert, "cat", "--index", url)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fields": []}, "was not filled by"),
        ({"is_finished": 1}, "layout.json: is_finished is not usable"),
        ({"fields.dim": 7}, "holds other vectors than its model gives; got 'dense of 7'"),
        ({"fields.name": "late"}, "part-00000.jsonl cannot be read"),
        ({"sums": {}}, "does not name a part that was loaded; got 'part-00000.jsonl'"),
        ({"sums": {"../part-00000.jsonl": "x"}}, "checksums.json"),
        (None, "layout.json is missing"),
    ],
)
def test_what_lies_beside_the_parts_is_read_as_strictly(change, said, bert, tmp_path, write_jsonl):
    corpus, url = write_jsonl(rows(), "corpus.jsonl"), f"jsonl://{tmp_path}/docs"
    assert run("load", bert, corpus, "--into", url).exit_code == 0
    layout, sums = (tmp_path / "docs" / name for name in ("layout.json", "checksums.json"))
    content = json.loads(layout.read_text())
    for key, value in (change or {}).items():
        if key == "sums":
            sums.write_text(json.dumps(value))
        elif "." in key:
            content["fields"][0][key.partition(".")[2]] = value
        else:
            content[key] = value
    layout.write_text(json.dumps(content))
    if change is None:
        layout.unlink()
    assert said in refused("search", bert, "cat", "--index", url)


@pytest.mark.parametrize("scheme", ["jsonl", "vespa", "faiss", "elasticsearch"])
def test_a_folder_of_other_files_is_left_alone(scheme, bert, tmp_path, write_jsonl):
    (tmp_path / "docs").mkdir()
    corpus, url = write_jsonl(rows(), "docs/corpus.jsonl"), f"jsonl://{tmp_path}/other"
    assert run("load", bert, corpus, "--into", url).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places = ["docs"] if scheme == "jsonl" else ["docs", "other"]
    for place in places:
        for words in (("load", bert, corpus, "--into"), ("search", bert, "cat", "--index")):
            said = refused(*words, f"{scheme}://{tmp_path}/{place}")
            assert "holds other files" in said or "of another engine" in said
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
