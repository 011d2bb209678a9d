import numpy as np
import pytest
from task_toys import written

from embedtrain.errors import UserError
from embedtrain.evaluation.tasks import labelled
from embedtrain.evaluation.tasks.classification import NUM_PROBES, draw_examples
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder


def data(write_jsonl, number=30):
    rng = np.random.default_rng(0)
    vectors, rows = {}, []
    for place in range(number):
        label = place % 2
        vectors[f"t{place}"] = [2 * label - 1 + 0.1 * rng.normal(), rng.normal()]
        rows.append({"text": f"t{place}", "label": label})
    write_jsonl(rows[: 2 * number // 3], "x.train.jsonl")
    return str(write_jsonl(rows[2 * number // 3 :], "x.test.jsonl")), vectors


def test_labels_that_a_plane_separates_are_learnt_from_eight_examples_each(bert, write_jsonl):
    path, vectors = data(write_jsonl)
    subject = written(bert, vectors)
    outcome = open_task(path).run(subject)
    assert set(outcome.per_query["accuracy"].values()) == {1.0}
    assert len(outcome.per_query["accuracy"]) == 10
    assert set(subject.roles) == {"symmetric"}


def test_each_probe_gets_eight_rows_of_each_label_and_not_always_the_same():
    labels = ["a"] * 20 + ["b"] * 5 + ["c"] * 12
    drawn = draw_examples(labels)
    assert len(drawn) == NUM_PROBES
    for rows in drawn:
        assert sorted(labels[row] for row in rows) == ["a"] * 8 + ["b"] * 5 + ["c"] * 8
    assert len({tuple(sorted(rows)) for rows in drawn}) > 5
    assert drawn == draw_examples(labels)


def test_a_label_without_training_rows_and_missing_training_rows_are_refused(write_jsonl):
    write_jsonl([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "x.train.jsonl")
    test = [{"text": "c", "label": "x"}, {"text": "d", "label": "z"}]
    with pytest.raises(UserError, match="labels that no training row has; got 'z'"):
        open_task(str(write_jsonl(test, "x.test.jsonl")))
    with pytest.raises(UserError, match="has no training rows beside it"):
        open_task(str(write_jsonl(test, "alone.jsonl")), kind="classification")


def test_late_interaction_is_refused_with_what_it_can_do(late_interaction, write_jsonl, cache):
    path, _ = data(write_jsonl)
    subject = Subject(load_encoder(late_interaction), "late", cache)
    with pytest.raises(
        UserError, match=r"needs one vector of plain numbers per text.*bitext_mining"
    ):
        open_task(path).run(subject)


def test_scikit_learn_that_is_missing_is_named_with_the_extra(monkeypatch):
    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(labelled, "import_module", fail)
    with pytest.raises(UserError, match=r"scikit-learn.*embedtrain\[evaluation\]"):
        labelled.scikit_learn("cluster", "to cluster vectors")
