"""Document-aware retrieval: each way of giving a passage its document, by hand-worked values."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.dapr import (
    Passages,
    late_vectors,
    of_documents,
    rank_documents,
    read_passages,
    with_document_means,
    with_openings,
)
from embedtrain.evaluation.probes.discovery import run_probe
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.late_chunking import LateChunkEncoder
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.fusion import Fusion, fuse

ANIMALS = ["cat", "dog", "bird"]
PASSAGES = ["the {} runs", "it sleeps under a tree", "it jumps over the house"]


@pytest.fixture
def folder(tmp_path):
    """Three documents of three passages, all but the first of which say ``it``."""
    corpus, queries, judgments = [], [], ["query-id\tcorpus-id\tscore"]
    for animal in ANIMALS:
        for number, text in enumerate(PASSAGES):
            row = {"_id": f"{animal}{number}", "title": f"a {animal}", "text": text.format(animal)}
            corpus.append(row | {"document": animal})
        queries.append({"_id": f"q-{animal}", "text": f"{animal} sleeps under a tree"})
        judgments.append(f"q-{animal}\t{animal}1\t1")
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(judgments) + "\n")
    return tmp_path


@pytest.fixture
def passages(folder):
    return read_passages(folder / "corpus.jsonl")


def values(findings):
    return {(one.setting, one.metric): one.value for one in findings}


def test_a_passage_that_does_not_name_its_subject_needs_its_document(folder, bert, cache):
    found = values(run_probe("dapr", Subject(load_encoder(bert), "x", cache), ProbeWish(folder)))
    alone = found["passage", "passage_ndcg_at_10"]
    # The three passages are the same text: by chance the first, second or third of them.
    ties = [1, 1 / np.log2(3), 1 / np.log2(4)]
    assert alone <= np.mean(ties) + 0.01
    settings = [setting for setting, metric in found if metric == "passage_ndcg_at_10"]
    assert settings == [
        *("passage", "title + passage", "opening + passage", "passage + mean of document"),
        *("late chunking", "passage, fused with BM25 of documents"),
        "passage, fused with BM25 of documents by scores",
    ]
    assert found["title + passage", "passage_ndcg_at_10"] != alone
    fused = found["passage, fused with BM25 of documents", "document_ndcg_at_10"]
    assert fused > found["passage", "document_ndcg_at_10"]
    assert all(0 <= value <= 1 for value in found.values())


def test_late_interaction_is_ranked_in_the_ways_that_need_no_mean(folder, late_interaction, cache):
    subject = Subject(load_encoder(late_interaction), "x", cache)
    settings = {one.setting for one in run_probe("dapr", subject, ProbeWish(folder))}
    assert settings == {
        *("passage", "title + passage", "opening + passage"),
        "passage, fused with BM25 of documents",
        "passage, fused with BM25 of documents by scores",
    }


def test_openings_stand_before_all_passages_but_the_first(passages):
    texts = with_openings(passages)
    assert texts[:2] == ["the cat runs", "the cat runs it sleeps under a tree"]
    assert texts[8] == "the bird runs it jumps over the house"
    told = replace(passages, summaries={"cat": "Of a cat."})
    assert with_openings(told)[:2] == ["Of a cat. the cat runs", f"Of a cat. {PASSAGES[1]}"]
    many = Passages(["a", "b"], ["", ""], ["w " * 50, "end"], ["d", "d"], {"d": [0, 1]})
    assert with_openings(many)[1] == "w " * 32 + "end"


def test_means_are_those_of_the_passages_document():
    passages = Passages(
        ["a", "b", "c"], [""] * 3, ["x"] * 3, ["1", "2", "1"], {"1": [0, 2], "2": [1]}
    )
    vectors = np.array([[1, 0], [0, 4], [3, 2]], dtype=np.float32)
    assert with_document_means(vectors, passages).tolist() == [[3, 1], [0, 8], [5, 3]]


def test_passages_are_pooled_from_the_whole_document(passages, bert):
    model = load_encoder(bert)
    vectors = late_vectors(model, passages)
    text = "a cat\nthe cat runs\nit sleeps under a tree\nit jumps over the house"
    spans = [(6, 18), (19, 41), (42, len(text))]
    expected = LateChunkEncoder(model.eval(), 1).embed_spans([text], [spans], Execution()).tokens
    np.testing.assert_allclose(vectors[:3], expected.detach().numpy(), atol=2e-7)
    alone = encode_texts(model, [passages.texts[1]], "document")
    assert np.abs(vectors[1] - alone[0]).max() > 1e-3
    assert np.abs(vectors[1] - vectors[4]).max() > 1e-4  # the same words in another document


def test_ranks_are_fused_as_the_formula_says():
    found = SearchResult(np.array([[2, 0]]), np.array([[0.9, 0.5]], dtype=np.float32))
    documents = SearchResult(np.array([[0]]), np.array([[3.0]], dtype=np.float32))
    fused = fuse([found, documents], Fusion(rule="rrf"), 3, [None, [[0, 1], [2]]])
    assert fused.indices.tolist() == [[0, 1, 2]]
    assert fused.scores[0] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 61])


def test_documents_are_judged_and_scored_by_their_best_passage():
    owner = {"a": "1", "b": "1", "c": "2"}
    assert of_documents({"q": {"b": 2, "a": 1, "c": 0}}, owner) == {"q": {"1": 2, "2": 0}}
    assert of_documents({"q": {"a": 0.1, "b": -0.3, "c": -0.2}}, owner) == {
        "q": {"1": 0.1, "2": -0.2}
    }


def test_bm25_ranks_documents_by_all_their_passages(passages):
    found = rank_documents(["dog jumps"], passages)
    assert ANIMALS[found.indices[0, 0]] == "dog"
    assert {ANIMALS[row] for row in found.indices[0]} == set(ANIMALS)


def test_the_command_line_takes_a_folder(folder, bert):
    done = CliRunner().invoke(app, ["probe", bert, "dapr", "--data", str(folder)])
    assert done.exit_code == 0, done.output
    assert "opening + passage" in done.output


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"_id": "1", "text": "cat"}, "does not say which document"),
        ({"_id": "1", "text": " ", "document": "d"}, "has no text"),
    ],
)
def test_rows_that_cannot_be_used_are_named(row, message, write_jsonl):
    with pytest.raises(UserError, match=rf"c\.jsonl:1 {message}"):
        read_passages(write_jsonl([row], "c.jsonl"))
