"""Rows become a BEIR folder whose splits share nothing."""

import json

import pytest
from pydantic import ValidationError

from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.workflows.hold_out import HoldOutStage, hold_out_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("rows")
    rows = [
        {"query": f"query {n}", "positive": f"text {n // 2}", "negatives": [f"other {n}"]}
        for n in range(120)
    ]
    for n, mark in enumerate("\t\n\r\u2028"):  # an id with one would part the lines of judgments
        rows[n]["query_id"] = f"id{mark}{n}"
    rows.append({"query": "QUERY  1", "positive": "text 0"})  # query 1 again
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return hold_out_rows(HoldOutStage(path=str(place / "rows.jsonl")), place / "data")


def test_splits_share_neither_queries_nor_answers(folder):
    tasks = [load_retrieval_task(folder, split) for split in ("train", "dev", "test")]
    asked = [set(task.query_ids) for task in tasks]
    answers = [{d for found in task.qrels.values() for d in found} for task in tasks]
    for parts in (asked, answers):
        assert sum(map(len, parts)) == len(set().union(*parts))
    assert sum(map(len, asked)) == 120
    assert len(asked[1]) >= 10 <= len(asked[2])


def test_what_trains_is_what_was_not_held_out(folder):
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    task = load_retrieval_task(folder, "train")
    assert {row["query"].casefold().replace("  ", " ") for row in rows} == set(task.queries)
    assert all(row["negatives"][0].startswith("other") for row in rows if "negatives" in row)
    assert set(task.documents) >= {f"text {n}" for n in range(60)}


def test_without_queries_that_choose_there_is_no_such_split(folder, tmp_path):
    rows = folder / "train.jsonl"
    found = hold_out_rows(HoldOutStage(path=str(rows), dev=0, test=0.2), tmp_path / "data")
    assert {path.stem for path in (found / "qrels").iterdir()} == {"train", "test"}
    assert "dev" not in json.loads((found / "report.json").read_text())["queries"]


def test_too_much_held_out_is_refused():
    with pytest.raises(ValidationError, match="leave too little"):
        HoldOutStage(path="x", dev=0.45, test=0.45)
