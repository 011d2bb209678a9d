"""Instructions of single queries: where they stand, whom they touch, and what is refused."""

import json

import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.discovery import run_probe
from embedtrain.evaluation.tasks.subject import Subject, with_prompts
from embedtrain.models.build import load_encoder

CORPUS = {"d0": "a cat sleeps", "d1": "the dog runs", "d2": "a bird jumps under a tree", "d3": "it"}


def folder_of(path, queries):
    lines = [json.dumps({"_id": name, "text": text}) for name, text in CORPUS.items()]
    (path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (path / "qrels").mkdir(exist_ok=True)
    judged = "".join(f"{row['_id']}\td{number}\t1\n" for number, row in enumerate(queries))
    (path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return path


def measured(subject, folder, **wish):
    found = run_probe("query-instructions", subject, ProbeWish(data=folder, **wish))
    return {one.metric: one.value for one in found}, found[0].setting


@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_a_query_without_an_instruction_scores_the_same_to_the_bit(kind, request, tmp_path, cache):
    queries = [
        {"_id": "q0", "text": "cat", "instruction": "the dog runs the dog runs"},
        {"_id": "q1", "text": "dog", "instruction": " "},
    ]
    subject = Subject(load_encoder(request.getfixturevalue(kind)), kind, cache)
    values, setting = measured(subject, folder_of(tmp_path, queries), template="plain")
    assert setting == "2 queries, 1 with an instruction"
    assert values["share that loses"] + values["share that gains"] <= 0.5


def test_the_instruction_stands_before_the_query_in_place_of_the_prompt(bert, tmp_path, cache):
    queries = [
        {"_id": "q0", "text": "sleeps", "instruction": "a cat"},
        {"_id": "q1", "text": "runs", "instruction": "the dog"},
    ]
    model = with_prompts(load_encoder(bert), "under a tree under a tree ", "")
    values, _ = measured(
        Subject(model, "bert", cache), folder_of(tmp_path, queries), template="plain"
    )
    assert values["ndcg_at_10 with"] == 1  # "a cat sleeps" and "the dog runs" are documents
    assert values["ndcg_at_10 without"] < 1
    assert values["difference"] == pytest.approx(1 - values["ndcg_at_10 without"])
    assert values["share that loses"] == 0


def test_instructions_that_fill_the_query_are_counted(bert, tmp_path, cache):
    long = "the dog runs " * 300
    queries = [
        {"_id": f"q{row}", "text": "cat", "instruction": text}
        for row, text in enumerate([long, "a"])
    ]
    values, _ = measured(Subject(load_encoder(bert), "bert", cache), folder_of(tmp_path, queries))
    assert values["cut"] == 0.5


@pytest.mark.parametrize(
    ("instruction", "message"), [(None, "no judged query with an instruction"), (7, "is no text")]
)
def test_queries_without_instructions_are_refused(instruction, message, bert, tmp_path, cache):
    row = {"_id": "q0", "text": "cat", "instruction": instruction}
    with pytest.raises(UserError, match=message):
        measured(Subject(load_encoder(bert), "bert", cache), folder_of(tmp_path, [row]))
