"""Queries in several forms, and queries that learn from what they found."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.workflows.evaluate.asking import Asking, ask_model, ask_words
from embedtrain.workflows.evaluate.first_stage import open_system
from embedtrain.workflows.evaluate.fused import evaluate_fused
from embedtrain.workflows.evaluate.systems import Fusing
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.prepare import load_task
from embedtrain.workflows.search import Searcher

KINDS = ["bert", "late_interaction", "sparse_model", "bm25"]
HOW = ["mean", "fuse", "max"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def data(beir, tmp_path):
    """The corpus with a function that writes forms beside its queries."""
    folder = shutil.copytree(beir, tmp_path / "beir")
    task = load_task(str(folder), "test")

    def write(form):
        rows = [
            {"_id": name, **row}
            for place, name in enumerate(task.query_ids)
            for row in form(place, task)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "query_forms.jsonl").write_text(text)
        return folder

    return write


def ask(kind, folder, request, **asking):
    task = open_task(str(folder))
    if kind == "bm25":
        return ask_words(Bm25Index(Bm25Search(), task.task.documents), task, Asking(**asking), 20)
    system = open_system(request.getfixturevalue(kind), Wish([str(folder)]))
    return ask_model(system.subject, task, Asking(**asking), 20)


def plain(kind, folder, request):
    task = open_task(str(folder))
    if kind == "bm25":
        return Bm25Index(Bm25Search(), task.task.documents).search(task.task.queries, 20)
    return ask(kind, folder, request)


@pytest.mark.parametrize("kind", KINDS)
def test_forms_that_say_the_same_or_weigh_nothing_change_nothing(kind, data, request):
    folder = data(
        lambda place, task: [
            {"form": "again", "text": task.queries[place]},
            {"form": "other", "text": "the house", "weight": 0},
        ]
    )
    usual = plain(kind, folder, request)
    for how in ("mean", "max"):
        found = ask(kind, folder, request, forms=how)
        assert (found.indices == usual.indices).all()
    assert (ask(kind, folder, request, forms="mean").scores == usual.scores).all()
    fused = ask(kind, folder, request, forms="fuse")
    assert (fused.indices == usual.indices).all()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_the_answer_as_a_hypothetical_document_finds_it_and_that_of_another_does_not(
    kind, how, data, request
):
    def answers(shift):
        def form(place, task):
            document = task.documents[(place + shift) % 10]
            return [
                {"form": "hyde-0", "kind": "document", "text": document, "weight": 5},
                {"form": "original", "weight": 0 if how != "mean" else 0.01},
            ]

        return form

    right = ask(kind, data(answers(0)), request, forms=how)
    assert (right.indices[:, 0] == list(range(10))).mean() >= 0.9
    wrong = ask(kind, data(answers(1)), request, forms=how)
    assert (wrong.indices[:, 0] == list(range(10))).mean() <= 0.1


def test_bm25_adds_the_scores_of_forms(data, request):
    folder = data(lambda *_: [{"form": "more", "text": "the house", "weight": 3}])
    task = open_task(str(folder))
    index = Bm25Index(Bm25Search(), task.task.documents)
    (first, second) = index.scores([task.task.queries[0], "the house"])
    expected = 0.25 * first + 0.75 * second
    found = ask_words(index, task, Asking(forms="mean"), 20)
    used = found.indices[0] >= 0
    assert found.scores[0][used] == pytest.approx(expected[found.indices[0][used]])


def test_a_result_of_forms_is_compared_with_the_queries_as_they_are(bert, data):
    folder = data(lambda place, task: [{"form": "a", "text": task.documents[place]}])
    wish = Wish([str(folder)], efficiency=False)
    (result,) = evaluate_fused(bert, wish, Fusing(asking=Asking("mean")))
    (usual,) = evaluate_tasks(bert, wish)
    gain = result.metrics["ndcg_at_10"].value - usual.metrics["ndcg_at_10"].value
    assert result.comparison.metrics["ndcg_at_10"].difference == pytest.approx(gain)
    assert result.comparison.baseline == "queries and documents as they are"
    assert result.fusion is None
    assert result.model.settings["forms"].startswith("mean of ")
    (fused,) = evaluate_fused(bert, wish, Fusing(("bm25",), asking=Asking("max")))
    assert [part.model.settings["forms"][:3] for part in fused.fusion.parts] == ["max", "max"]


@pytest.mark.parametrize("kind", ["bert", "late_interaction", "sparse_model"])
def test_feedback_reaches_evaluation_and_search_alike(kind, beir, request):
    model = request.getfixturevalue(kind)
    words = "2:beta=0.7"
    task = open_task(str(beir))
    subject = open_system(model, Wish([str(beir)])).subject
    found = ask_model(subject, task, Asking(feedback=words), 5)
    asking = Fusing(asking=Asking(feedback=words))
    hits = Searcher(model, str(beir), "test", fusing=asking).search(task.task.queries[0], 5)
    expected = [task.task.document_ids[row] for row in found.indices[0] if row >= 0]
    assert [hit.document_id for hit in hits] == expected
    none = ask_model(subject, task, Asking(feedback="2:beta=0"), 5)
    usual = subject.search(task.task.queries, task.task.documents, 5, "query")
    assert (none.indices == usual.indices).all()
    assert not (found.scores == usual.scores).all()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "evaluate bm25 --data {beir} --forms mean",
            "needs a query_forms.jsonl beside the queries",
        ),
        ("evaluate bm25 --data {beir} --feedback 3", "is for models; got 'bm25'"),
        ("evaluate bm25 --data {beir} --feedback 3 --forms max", "needs one vector of each query"),
        ("evaluate {bert} --data {beir} --feedback 3:gamma=1", "gamma"),
        ("evaluate {bert} --data {beir} --feedback none", "num_documents"),
        ("search bm25 cat --data {beir} --feedback 3", "is for models; got '3'"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(command, said, beir, bert):
    result = CliRunner().invoke(app, command.format(beir=beir, bert=bert).split())
    assert isinstance(result.exception, UserError), result.output
    assert said in str(result.exception)
