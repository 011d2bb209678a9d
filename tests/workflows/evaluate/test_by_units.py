"""Documents found by their best unit."""

import json
import shutil

import pytest

from embedtrain.errors import UserError
from embedtrain.workflows.evaluate.fused import evaluate_fused, open_retrieval
from embedtrain.workflows.evaluate.systems import Fusing, open_systems
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.prepare import load_task
from embedtrain.workflows.search import Searcher


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def data(beir, tmp_path):
    """The corpus with a function that writes units beside it."""
    folder = shutil.copytree(beir, tmp_path / "beir")
    task = load_task(str(folder), "test")

    def write(cut):
        rows = []
        for name, text in zip(task.document_ids, task.documents, strict=True):
            units = [{"document": name, **one} for one in cut(name, text)]
            rows += [{"_id": f"{name}-{place}", **one} for place, one in enumerate(units)]
        (folder / "units.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return write


def found(system, folder, depth, *, units):
    wish = Wish([str(folder)], efficiency=False)
    systems = open_systems(system, wish, Fusing(units=units))
    return systems.find(open_retrieval(wish, "--units")[0], depth).stage.found


@pytest.mark.parametrize("kind", ["bert", "bm25"])
def test_units_that_are_the_documents_change_nothing(kind, data, request):
    folder = data(lambda _, text: [{"text": text}])
    system = kind if kind == "bm25" else request.getfixturevalue(kind)
    wish = Wish([str(folder)], efficiency=False)
    (result,) = evaluate_fused(system, wish, Fusing(units=True))
    assert result.comparison.metrics["ndcg_at_10"].difference == 0
    assert "units" in result.model.settings
    if kind == "bert":
        (usual,) = evaluate_tasks(system, wish)
        assert result.per_query == usual.per_query


def test_a_document_scores_as_its_best_unit_and_enough_units_are_fetched(data):
    # Twelve units of d0 come before any other: the first fetch of 2 x 2 sees no other document.
    def cut(name, text):
        times = {"d0": 12, "d1": 2, "d2": 1}.get(name, 0)
        return [{"text": f"zebra zebra {text}" if name == "d0" else "zebra"}] * times

    folder = data(cut)
    queries = (folder / "queries.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"text": "zebra"} for line in queries]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    best = found("bm25", folder, 2, units=True)
    assert best.indices.shape == (10, 2)
    assert set(best.indices[0].tolist()) <= {0, 1, 2}
    assert len(set(best.indices[0].tolist())) == 2
    whole = found("bm25", folder, 30, units=True)
    assert (whole.indices[0] >= 0).sum() == 3, "documents without units are never found"
    assert whole.indices[0, :2].tolist() == best.indices[0].tolist()


@pytest.mark.parametrize("others", [(), ("bm25",)])
def test_search_by_units_finds_what_is_measured(others, bert, data):
    def cut(_, text):
        words = text.split()
        return [{"text": " ".join(words[:2])}, {"text": " ".join(words[2:])}] * 3

    folder, fusing = data(cut), Fusing(others, units=True)
    wish = Wish([str(folder)], efficiency=False)
    (task,) = open_retrieval(wish, "--units")
    measured = open_systems(bert, wish, fusing).find(task, 5).stage.found
    searcher = Searcher(bert, str(folder), fusing=fusing)
    ids = task.task.document_ids
    for query, rows in zip(task.task.queries, measured.indices.tolist(), strict=True):
        hits = searcher.search(query, 5)
        assert {hit.document_id for hit in hits} == {ids[row] for row in rows}
        assert all(hit.text == task.task.documents[ids.index(hit.document_id)] for hit in hits)
    with pytest.raises(UserError, match=r"needs a units\.jsonl beside the corpus"):
        Searcher(bert, str(folder / "corpus.jsonl"), fusing=fusing)


def test_index_and_cost_are_those_of_units_told_by_document(bert, data):
    folder = data(lambda _, text: [{"text": text}] * 3)
    wish = Wish([str(folder)], index="hnsw", price_per_hour=1.0)
    (result,) = evaluate_fused(bert, wish, Fusing(units=True))
    (usual,) = evaluate_tasks(bert, wish)
    found, plain = result.efficiency, usual.efficiency
    assert found.num_documents == plain.num_documents
    assert found.bytes_per_document == found.index_bytes / found.num_documents
    assert found.bytes_per_document > 2 * plain.bytes_per_document
    expected = 1 / 3600 * 1e6 / found.documents_per_second
    assert found.price.per_million_documents == pytest.approx(expected)
    assert result.index.bytes_per_document == pytest.approx(found.bytes_per_document)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"_id": "u", "document": "d0", "text": ""}, "jsonl:1 has no text"),
        ({"_id": "u", "document": "d99", "text": "x"}, "unit of no document; got 'd99'"),
        ({"document": "d0", "text": "x"}, "no _id of its own"),
    ],
)
def test_units_that_cannot_be_used_are_named(row, message, data):
    folder = data(lambda *_: [])
    (folder / "units.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no unit"):
        found("bm25", folder, 5, units=True)
    (folder / "units.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message):
        found("bm25", folder, 5, units=True)
    (folder / "units.jsonl").unlink()
    with pytest.raises(UserError, match=r"needs a units\.jsonl beside the corpus"):
        found("bm25", folder, 5, units=True)
