import pytest
from task_toys import written

from embedtrain.errors import UserError
from embedtrain.evaluation.results.report import summarise
from embedtrain.evaluation.tasks.discovery import open_task


def rows(*labels):
    return [
        {"sentence1": "a", "sentence2": s, "label": x} for s, x in zip("abc", labels, strict=True)
    ]


@pytest.mark.parametrize(
    "labels", [(1, 0, 1), ("entailment", "NEUTRAL", "ENTAILMENT"), ("1", "0", "1")]
)
def test_average_precision_of_the_pairs_by_similarity(labels, bert, write_jsonl):
    task = open_task(str(write_jsonl(rows(*labels))))
    subject = written(bert, {"a": [1, 0], "b": [0.6, 0.8], "c": [0, 1]})
    outcome = task.run(subject)
    result = summarise(
        {}, task.data, predictions=outcome.predictions, set_metrics=outcome.set_metrics
    )
    assert result.metrics["average_precision"].value == pytest.approx((1 + 2 / 3) / 2)


def test_labels_of_one_kind_or_unknown_ones_are_the_users_mistake(write_jsonl):
    with pytest.raises(UserError, match="labels of one kind only"):
        open_task(str(write_jsonl(rows(1, 1, 1))))
    with pytest.raises(UserError, match=r"unknown label in row '2'; got 'maybe'"):
        open_task(str(write_jsonl(rows(1, "maybe", 0))))
