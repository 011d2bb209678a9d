import pytest

from embedtrain.evaluate import measure
from embedtrain.evaluation.metrics import score_run
from embedtrain.models.build import load_encoder
from embedtrain.prepare import load_task
from embedtrain.tasks.discovery import open_task
from embedtrain.tasks.retrieval import METRICS
from embedtrain.tasks.subject import Subject


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
