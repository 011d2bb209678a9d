"""What a loading verifies, what it leaves out, and what it refuses before any work."""

import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.encoding.cache import embed_once
from embedtrain.engines.file_engine import FileEngine
from embedtrain.engines.open import open_engine
from embedtrain.errors import UserError
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.workflows.load import load as workflow
from embedtrain.workflows.load.load import Wish, load

TEXTS = ["red cat runs", "the small blue bird sleeps near a large tree", "a dog", "green house"]


@pytest.fixture
def corpus(write_jsonl):
    """Write documents of these texts; d0, d1 and so on."""
    return lambda texts=TEXTS, **more: str(
        write_jsonl(
            [{"_id": f"d{number}", "text": text, **more} for number, text in enumerate(texts)],
            "corpus.jsonl",
        )
    )


@pytest.mark.parametrize("scheme", ["jsonl", "faiss", "elasticsearch", "vespa"])
def test_a_text_may_hold_what_ends_a_line_elsewhere(scheme, bert, tmp_path, corpus):
    if scheme == "faiss":
        pytest.importorskip("faiss")
    texts = ["red cat\u2028runs", "a dog\x85sleeps", "green\u2029house\x0c"]
    url = f"{scheme}://{tmp_path}/docs"
    done = load([bert], corpus(texts), url)
    assert (done.count, done.agreement[0].overlap) == (3, 1)
    with open_engine(url) as engine:
        assert sorted(engine.ids()) == ["d0", "d1", "d2"]


def test_faiss_is_verified_from_the_disk_and_holds_one_model(
    bert, sparse_model, tmp_path, corpus, monkeypatch
):
    pytest.importorskip("faiss")
    from embedtrain.engines.faiss_file import FaissEngine
    from embedtrain.engines.layout import Layout

    url, settle, kept = f"faiss://{tmp_path}/docs", FaissEngine.settle, []

    def damaged(self, layout):
        settle(self, layout)
        if layout.is_finished:
            path = tmp_path / "docs" / "documents.jsonl"
            kept.append(path.read_text())
            path.write_text("no JSON\n" * len(TEXTS))

    with monkeypatch.context() as patch:
        patch.setattr(FaissEngine, "settle", damaged)
        with pytest.raises(UserError, match=r"documents\.jsonl"):
            load([bert], corpus(), url)
    with open_engine(url, writes=True) as engine:
        [one] = engine.describe().fields
        second = one.model_copy(update={"name": "dense2"})
        with pytest.raises(UserError, match=r"holds the vectors of one model; got .dense, dense2"):
            engine.settle(Layout(fields=(one, second)))


def test_a_failed_verification_leaves_the_collection_unfinished(
    bert, tmp_path, corpus, monkeypatch
):
    pytest.importorskip("faiss")
    for scheme in ("jsonl", "faiss"):
        url = f"{scheme}://{tmp_path}/{scheme}"
        with monkeypatch.context() as patch:
            patch.setattr("embedtrain.workflows.load.verify.TOLERANCE", {"float32": -1.0})
            with pytest.raises(UserError, match="scores documents otherwise"):
                load([bert], corpus(), url)
        found = CliRunner().invoke(app, ["search", bert, "cat", "--index", url])
        assert "is half filled" in str(found.exception)
        load([bert], corpus(), url)
        assert CliRunner().invoke(app, ["search", bert, "cat", "--index", url]).exit_code == 0


def test_documents_that_the_engine_lost_are_missed(bert, tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(workflow, "BATCH_BYTES", 1)
    many = [f"{text} {more}" for text in TEXTS for more in ("", "near", "large", "blue", "tree")]
    write = FileEngine.write
    monkeypatch.setattr(
        FileEngine, "write",
        lambda self, records: None if records[0].document.id == "d1" else write(self, records),
    )  # fmt: skip
    with pytest.raises(UserError, match="holds fewer documents than were loaded; got '1 fewer'"):
        load([bert], corpus(many), f"jsonl://{tmp_path}/docs")


def test_an_exact_search_has_to_find_all(bert, tmp_path, corpus, monkeypatch):
    many = [f"{text} {more}" for text in TEXTS for more in ("", "near", "large", "blue", "tree")]
    search = FileEngine.search
    monkeypatch.setattr(
        FileEngine, "search",
        lambda self, field, queries, wanted: [
            found[1:] for found in search(self, field, queries, wanted)
        ],
    )  # fmt: skip
    with pytest.raises(UserError, match="finds other documents than exact search"):
        load([bert], corpus(many), f"jsonl://{tmp_path}/docs")
    monkeypatch.setattr(FileEngine, "is_exact", lambda self, field: False)
    assert load([bert], corpus(many), f"jsonl://{tmp_path}/docs").agreement[0].overlap < 0.99


def test_a_corpus_without_words_is_loaded_and_not_verified(bert, tmp_path, corpus):
    words = ["load", bert, corpus(["", " "]), "--into", f"jsonl://{tmp_path}/docs"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    assert "2 documents; 2 written" in done.output
    assert "Not verified: no text holds a word." in done.output


def test_a_document_of_which_nothing_is_left_does_not_keep_what_it_was(
    sparse_model, tmp_path, corpus, monkeypatch
):
    def with_nothing(model, key, texts, *arguments, **settings):
        values = embed_once(model, key, texts, *arguments, **settings).dense()
        values[[text == "..." for text in texts]] = 0
        return SparseVectors.of_dense(values)

    monkeypatch.setattr(workflow, "embed_once", with_nothing)
    monkeypatch.setattr("embedtrain.engines.formats.JsonLines.takes_empty", frozenset())
    url, wish = f"jsonl://{tmp_path}/docs", Wish(num_queries=1)
    assert load([sparse_model], corpus(), url, wish).count == 4
    done = load([sparse_model], corpus([TEXTS[0], "...", *TEXTS[2:]]), url, wish)
    assert (done.count, done.removed, done.left_out) == (3, 1, ["d1"])
    with open_engine(url) as engine:
        assert sorted(engine.ids()) == ["d0", "d2", "d3"]
    assert load([sparse_model], corpus([TEXTS[0], "...", *TEXTS[2:]]), url, wish).removed == 0


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_no_json_holds_are_refused_before_any_work(value, bert, tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        f'{{"_id": "a", "text": "red"}}\n{{"_id": "b", "text": "cat", "score": {value}}}\n'
    )
    with pytest.raises(UserError, match=r"corpus\.jsonl:2 metadata holds NaN or Infinity"):
        load([bert], str(path), f"jsonl://{tmp_path}/docs")
    assert not (tmp_path / "docs").exists()


@pytest.mark.filterwarnings("ignore")  # of the client's own libraries
@pytest.mark.parametrize("index", ["hnsw", "ivf"])
def test_an_index_of_lancedb_scores_as_the_model_does(index, bert, tmp_path, corpus):
    pytest.importorskip("lancedb")
    many = [f"{text} {one} {other}" for text in TEXTS for one in TEXTS for other in ("", *TEXTS)]
    done = load([bert], corpus(many * 4), f"lancedb://{tmp_path}/docs?index={index}")
    assert done.agreement[0].overlap > 0.5
    assert done.agreement[0].difference < 1e-4
