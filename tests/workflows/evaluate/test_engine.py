"""An engine's collection in the place of an index: what it finds is measured, and other documents are refused."""

import json

import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.engines.file_engine import FileEngine
from embedtrain.errors import UserError
from embedtrain.workflows.load.load import load


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def refused(*arguments):
    done = run(*arguments)
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


def test_evaluate_measures_what_an_engine_finds(
    bert, beir, sparse_model, tmp_path, write_jsonl, monkeypatch
):
    url = f"jsonl://{tmp_path}/docs"
    load([bert, sparse_model], str(beir), url)
    words = ["--data", str(beir), "--no-efficiency", "--output"]
    for name, model in (("dense", bert), ("sparse", sparse_model)):
        for kind, more in (("ours", ()), ("theirs", ("--index", url))):
            done = run("evaluate", model, *words, tmp_path / f"{name}-{kind}.json", *more)
            assert done.exit_code == 0, done.exception
        ours, theirs = (
            json.loads((tmp_path / f"{name}-{kind}.json").read_text())
            for kind in ("ours", "theirs")
        )
        assert theirs["per_query"] == ours["per_query"]
        assert theirs["index"]["settings"] == {"name": "engine", "url": url}
        assert theirs["index"]["recall"]["recall_at_10"] == 1
        assert theirs["model"]["settings"]["index"]["url"] == url

    def nothing_found(self, field, queries, num_results):
        return [[] for _ in range(len(queries))]

    with monkeypatch.context() as patch:
        patch.setattr(FileEngine, "search", nothing_found)
        place = tmp_path / "dense-theirs.json"
        assert run("evaluate", bert, *words, place, "--index", url).exit_code == 0
        assert json.loads(place.read_text())["index"]["recall"]["recall_at_10"] == 0, (
            "it was measured anew, for a collection may have changed"
        )


def test_evaluate_searches_an_engine_that_keeps_no_hashes(bert, beir, tmp_path):
    pytest.importorskip("faiss")
    url = f"faiss://{tmp_path}/docs?factory=Flat"
    load([bert], str(beir), url)
    words = ["evaluate", bert, "--data", beir, "--no-efficiency", "--output"]
    place = tmp_path / "theirs.json"
    done = run(*words, place, "--index", url)
    assert done.exit_code == 0, done.exception
    assert json.loads(place.read_text())["index"]["recall"]["recall_at_10"] == 1


def test_evaluate_refuses_a_collection_of_other_documents(bert, beir, tmp_path, write_jsonl):
    words = ["evaluate", bert, "--data", beir, "--index"]
    url = f"jsonl://{tmp_path}/few"
    load([bert], str(write_jsonl([{"_id": "d 0", "text": "a dog"}], "corpus.jsonl")), url)
    assert "lacks 30 documents" in refused(*words, url)
    more = beir / "corpus.jsonl"
    load([bert], str(beir), f"{url}er")
    lines = more.read_text().splitlines(keepends=True)
    more.write_text("".join([*lines, '{"_id": "new", "text": "new"}\n']))
    load([bert], str(beir), f"{url}er")
    more.write_text("".join(lines))
    assert "1 of them" in refused(*words, f"{url}er")
    assert "names an engine" in refused(*words, url, "--with", "bm25")
    assert "--dim does not go with" in refused(*words, url, "--dim", "4")
    assert "is no collection" in refused(*words, f"jsonl://{tmp_path}/none")
