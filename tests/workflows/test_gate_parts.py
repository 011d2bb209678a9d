"""What a model gained where documents had trained, and where they had not."""

import json

import pytest

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.evaluation.results.result import EvaluatedData, EvaluationResult, Interval
from embedtrain.workflows.fit.report_scores import by_answers
from embedtrain.workflows.gate_parts import by_what_trained

NUM = 20


@pytest.fixture
def task():
    names = [f"q{n}" for n in range(NUM)]
    return RetrievalTask(
        "toy", names, [f"query {n}" for n in range(NUM)], [f"d{n}" for n in range(NUM)],
        [f"Text {n}" for n in range(NUM)], {name: {f"d{n}": 1} for n, name in enumerate(names)}, "print",
    )  # fmt: skip


def result(values):
    scores = {f"q{n}": value for n, value in enumerate(values)}
    data = EvaluatedData(
        name="toy", split="test", num_queries=NUM, num_documents=NUM, fingerprint="print"
    )
    return EvaluationResult.model_validate(
        {
            "metrics": {"ndcg_at_10": Interval(value=0.5, low=0.4, high=0.6, num=NUM)},
            "data": data,
            "per_query": {"ndcg_at_10": scores},
        }
    )


def rows(path, number):
    """Write rows that the first texts answer, in other capitals."""
    lines = [
        json.dumps({"query": f"another {n}", "positive": f"TEXT {n}"}) + "\n" for n in range(number)
    ]
    path.write_text("".join(lines))
    return str(path)


def test_gains_stand_apart_for_answers_that_trained(task, tmp_path):
    before = result([0.5] * NUM)
    after = result([0.75 + 0.01 * (n % 2) if n < 12 else 0.4 for n in range(NUM)])
    found = by_what_trained(task, rows(tmp_path / "rows.jsonl", 12), before, after)
    seen, new = found["by_answers"]["answers_trained"], found["by_answers"]["answers_new"]
    assert (seen["num"], new["num"]) == (12, 8)
    assert seen["difference"] == pytest.approx(0.255)
    assert new["difference"] == pytest.approx(-0.1)
    assert seen["low"] < seen["difference"] < seen["high"]
    (said,) = by_answers(found)
    assert "+0.255 [" in said
    assert (
        "on 12 queries answered by a document that also answered a training query; -0.100" in said
    )


def test_a_kind_of_few_queries_has_no_interval_and_one_that_is_alone_says_nothing(task, tmp_path):
    before, after = result([0.5] * NUM), result([0.6] * NUM)
    few = by_what_trained(task, rows(tmp_path / "few.jsonl", 3), before, after)
    assert few["by_answers"]["answers_trained"] == {"num": 3, "difference": pytest.approx(0.1)}
    every = by_what_trained(task, rows(tmp_path / "every.jsonl", NUM), before, after)
    assert set(every["by_answers"]) == {"answers_trained"}
    assert by_answers(every) == []


def test_where_something_else_trained_than_documents_nothing_is_told_apart(task, tmp_path):
    before, after = result([0.5] * NUM), result([0.6] * NUM)
    found = by_what_trained(task, rows(tmp_path / "rest.jsonl", NUM + 1), before, after)
    assert set(found) == {"train_overlap"}
    assert by_answers(found) == []
