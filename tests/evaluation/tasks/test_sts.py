import numpy as np
import pytest
from task_toys import written

from embedtrain.evaluation.measures.set_metrics import as_arrays, set_metric
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.subject import Subject


def test_similarities_are_correlated_with_the_judged_scores(bert, write_jsonl):
    pairs = [("a", "a", 5), ("a", "b", 3), ("a", "c", 1), ("b", "c", 2.5)]
    rows = [{"sentence1": s, "sentence2": t, "score": score} for s, t, score in pairs]
    subject = written(bert, {"a": [1, 0], "b": [0.6, 0.8], "c": [0, 1]})
    outcome = open_task(str(write_jsonl(rows))).run(subject)
    assert outcome.set_metrics == ("spearman", "pearson")
    assert list(outcome.predictions.predicted.values()) == pytest.approx([1, 0.6, 0, 0.8])
    arrays = as_arrays(
        outcome.predictions.predicted, outcome.predictions.expected, ["1", "2", "3", "4"]
    )
    assert set_metric("spearman", *arrays)(np.ones((1, 4)))[0] == pytest.approx(0.8)
    assert set(subject.roles) == {"symmetric"}


def test_late_interaction_compares_in_both_directions(late_interaction, cache, sentences):
    from embedtrain.models.build import load_encoder

    subject = Subject(load_encoder(late_interaction), "late", cache)
    one, other = sentences[5:9], sentences[15:19]
    there, back = subject.similarities(one, other), subject.similarities(other, one)
    assert np.allclose(there, back)
    assert subject.similarities(one, one).max() <= 1 + 1e-6
