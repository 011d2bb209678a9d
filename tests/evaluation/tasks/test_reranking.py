import json

import pytest
from task_toys import written

from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder

VECTORS = {"q": [1, 0], "good": [0.8, 0.6], "bad": [0.6, 0.8], "best": [1, 0]}


def test_candidates_are_ordered_and_average_precision_comes_first(bert, write_jsonl):
    rows = [{"query": "q", "positive": ["good"], "negative": ["bad", "best"]}]
    outcome = open_task(str(write_jsonl(rows))).run(written(bert, VECTORS))
    assert next(iter(outcome.per_query)) == "map_at_1000"
    assert outcome.per_query["map_at_1000"] == {"1": 0.5}
    assert outcome.run["1"] == pytest.approx(
        {"1-positive-1": 0.8, "1-negative-1": 0.6, "1-negative-2": 1}
    )


def with_candidates(beir, tmp_path, rows):
    for part in beir.iterdir():
        (tmp_path / part.name).symlink_to(part)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "top_ranked.jsonl").write_text(text)
    return str(tmp_path)


def test_a_folder_names_its_candidates_and_late_interaction_scores_them(
    late_interaction, beir, tmp_path, cache
):
    rows = [{"query-id": f"q{n}", "corpus-ids": [f"d{n}", "d29", "d28"]} for n in range(10)]
    task = open_task(with_candidates(beir, tmp_path, rows))
    subject = Subject(load_encoder(late_interaction), "late", cache)
    outcome = task.run(subject)
    assert set(outcome.run["q3"]) == {"d3", "d28", "d29"}
    everything = open_task(str(beir)).run(subject).run
    for query, found in outcome.run.items():
        assert found == pytest.approx({one: everything[query][one] for one in found}, abs=1e-5)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query-id": "q0", "corpus-ids": ["d0"]}], "lacks a judged query; got 'q1'"),
        (
            [{"query-id": f"q{n}", "corpus-ids": ["d99"]} for n in range(10)],
            "names a document the corpus lacks; got 'd99'",
        ),
    ],
)
def test_candidates_that_do_not_fit_are_the_users_mistake(rows, message, beir, tmp_path):
    with pytest.raises(UserError, match=message):
        open_task(with_candidates(beir, tmp_path, rows))


def test_a_query_needs_a_positive_and_candidates_are_texts(write_jsonl):
    with pytest.raises(UserError, match="query without positives; got '1'"):
        open_task(str(write_jsonl([{"query": "q", "positive": [], "negative": ["a"]}])))
    with pytest.raises(UserError, match="candidate of '1' that is no text; got 3"):
        open_task(str(write_jsonl([{"query": "q", "positive": ["a"], "negative": [3]}])))
