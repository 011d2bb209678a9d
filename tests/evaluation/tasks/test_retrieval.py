import json

import numpy as np
import pytest
from task_toys import written

from embedtrain.evaluation.measures.metrics import rank_run, score_run
from embedtrain.evaluation.results.report import render_text
from embedtrain.evaluation.results.result import load_result
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.retrieval import METRICS, find_ties
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder
from embedtrain.retrieval.compression import Compression
from embedtrain.workflows.evaluate.model import measure
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.prepare import load_task


@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_scores_are_those_of_measure_and_of_the_ranking_that_is_kept(kind, request, beir, cache):
    model = load_encoder(request.getfixturevalue(kind))
    task = open_task(str(beir))
    outcome = task.run(Subject(model, kind, cache))
    plain = measure(model, load_task(str(beir), "test"), "test", "x", efficiency=False)
    assert outcome.per_query == plain.per_query
    again = score_run(task.task.qrels, outcome.run, METRICS)
    assert again == outcome.per_query
    assert all(len(found) == 30 for found in outcome.run.values())


def test_scores_that_are_tied_at_the_cut_have_their_expected_value_beside_them(beir, bert):
    task = open_task(str(beir))
    # every document looks like every query: the ids alone decide what is found first
    vectors = {text: [1.0, 0.0] for text in (*task.task.queries, *task.task.documents)}
    outcome = task.run(written(bert, vectors))
    assert (outcome.ties.cutoff, outcome.ties.tied_queries) == (10, 1.0)
    by_hand = (1 / np.log2(np.arange(2, 12))).sum() / len(task.task.documents)
    assert outcome.ties.expected == {"ndcg_at_10": pytest.approx(by_hand)}


@pytest.mark.parametrize(("tied", "given"), [(1, False), (2, True)])
def test_up_to_one_query_in_a_hundred_may_be_tied(tied, given):
    qrels = {f"q{number}": {"d0": 1} for number in range(100)}
    plain = {f"d{place}": float(-place) for place in range(12)}
    run = {
        query: plain | ({"d9": -10.0} if number < tied else {})
        for number, query in enumerate(qrels)
    }
    found = find_ties(rank_run(qrels, run))
    assert (found is not None) == given
    assert found is None or found.tied_queries == 0.02


def test_ties_of_bits_are_printed_and_stay_in_the_file(bert, beir, tmp_path):
    lines = (beir / "corpus.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    folder = tmp_path / "twice"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "title": "", "text": texts[n % 2]} for n in range(30)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for part in ("queries.jsonl", "qrels/test.tsv"):
        (folder / part).write_bytes((beir / part).read_bytes())
    wish = Wish([str(folder)], efficiency=False, compression=Compression(quantize="binary"))
    (result,) = evaluate_tasks(bert, wish, tmp_path / "a.json")
    assert load_result(tmp_path / "a.json") == result
    expected = result.ties.expected["ndcg_at_10"]
    assert expected != result.metrics["ndcg_at_10"].value
    shown = " ".join(render_text(result).split())
    assert f"expected with ties in random order: nDCG@10 {expected:.3f}" in shown
    (plain,) = evaluate_tasks(bert, Wish([str(beir)], efficiency=False))
    assert plain.ties is None
