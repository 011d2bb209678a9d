"""Data in memory become files that say the same."""

import json
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from embedtrain.data.examples import SourceConfig
from embedtrain.data.given import (
    copy_given,
    copy_sections,
    keep_given,
    keep_rows,
    keep_task,
    name_given,
)
from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.sources import check_early, open_source
from embedtrain.errors import UserError
from embedtrain.files import default_cache

ROWS = [
    {"query": "réd cat", "positive": "a cat", "negatives": ["a dog", "東京"]},
    {"query": "blue", "positive": "a bird", "negatives": ["x", "y"]},
]


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_holder_of_the_same_rows_gives_the_same_file():
    holders = [
        ROWS,
        tuple(ROWS),
        (row for row in ROWS),
        datasets.Dataset.from_list(ROWS),
        datasets.Dataset.from_list(ROWS).to_iterable_dataset(),
        pd.DataFrame(ROWS),
        pl.DataFrame(ROWS),
        pa.Table.from_pylist(ROWS),
    ]
    (path,) = {keep_rows(rows) for rows in holders}
    assert lines(path) == ROWS
    assert keep_rows([*ROWS, ROWS[0]]) != path
    examples = list(open_source(SourceConfig(path=str(path))).examples())
    assert [example.query for example in examples] == ["réd cat", "blue"]
    assert examples[0].negatives == ("a dog", "東京")


def test_missing_values_of_frames_are_null_and_numbers_of_numpy_are_numbers():
    frame = pd.DataFrame({"query": ["a", "b"], "positive": ["x", None], "n": [1.5, np.nan]})
    frame["m"] = pd.array([1, None], dtype="Int64")
    assert lines(keep_rows(frame))[1] == {"query": "b", "positive": None, "n": None, "m": None}
    rows = [{"query": "a", "scores": np.array([0.5, 1.0]), "k": np.int64(3), "t": ("x", "y")}]
    assert lines(keep_rows(rows)) == [{"query": "a", "scores": [0.5, 1.0], "k": 3, "t": ["x", "y"]}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"^data holds no row\."),
        (3, r"^data is nothing that holds rows; got 'int'\."),
        (None, r"^data is nothing that holds rows; got 'NoneType'\."),
        ("pairs.jsonl", r"^data is nothing that holds rows; got 'str'\."),
        ({"query": ["a"]}, r"^data is nothing that holds rows; got 'dict'\."),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), r"got 'DatasetDict'\..* one split"),
        ([ROWS[0], ("a", "b")], r"^data row 1 is no dict; got \('a', 'b'\)"),
        ([{"query": object()}], r"^data row 0 holds a value of type object\. Give texts"),
    ],
)  # fmt: skip
def test_what_is_no_rows_is_refused_in_one_line_and_leaves_nothing(rows, message):
    before = set((default_cache() / "given").glob("*"))
    with pytest.raises(UserError, match=message) as caught:
        keep_rows(rows)
    assert "\n" not in str(caught.value)
    assert set((default_cache() / "given").glob("*")) == before


def test_every_holder_of_the_same_task_gives_the_same_folder():
    queries, texts = {"0": "red", "1": "blue"}, ["a cat", "a bird", "a tree"]
    entries = [{"_id": number, "text": text} for number, text in enumerate(texts)]
    judged = [{"query-id": "0", "corpus-id": 2, "score": 1}, {"query-id": 1, "corpus-id": 0}]
    forms = [
        (queries, texts, {0: [2], 1: [0]}),
        (
            list(queries.values()),
            {str(n): text for n, text in enumerate(texts)},
            {"0": [2], "1": ["0"]},
        ),
        (pd.DataFrame({"_id": [0, 1], "text": ["red", "blue"]}), entries, {0: {2: 1}, 1: {0: 1}}),
        (queries, pl.DataFrame(entries), judged),
    ]
    tasks = [load_retrieval_task(keep_task(*form)) for form in forms]
    assert len({task.fingerprint for task in tasks}) == 1
    for task in tasks:
        assert task.queries == ["red", "blue"]
        assert task.documents == texts
        assert task.qrels == {"0": {"2": 1}, "1": {"0": 1}}


def test_grades_and_titles_are_kept():
    documents = {"x": {"title": "Cats", "text": "sleep"}, "y": "run"}
    task = load_retrieval_task(keep_task({"q": "cat"}, documents, {"q": {"x": 2, "y": 0}}))
    assert task.documents == ["Cats sleep", "run"]
    assert task.qrels == {"q": {"x": 2, "y": 0}}


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ({"q": 0.5}, r"^qrels of query q are no ids; got 0.5"),
        ({"q": "d"}, r"^qrels of query q are no ids; got 'd'\. Give a list of the ids"),
        ({"q": None}, r"^qrels of query q are no ids; got None"),
        ({"q": []}, r"^qrels of query q are none; got \[\]"),
        ({}, r"^qrels judges nothing; got \{\}"),
        ({"q": {"d": 0}}, r"^qrels of query q is of a query without a relevant document; got 0"),
        ({"q": {"d": "high"}}, r"^qrels of query q must have a whole number .*; got 'high'"),
        ({"q": {"d": 0.5}}, r"^qrels of query q must have a whole number .*; got 0\.5"),
        ({"p": ["d"]}, r"^qrels of query p names a query that is not given; got 'p'"),
        ({"q": ["d", "e"]}, r"^qrels of query q names a document that is not given; got 'e'"),
        ({"q": ["blank"]}, r"^qrels of query q names a document without text; got 'blank'"),
        ([{"query-id": "q"}], r"^qrels row 0 lacks corpus-id"),
        ([{"query-id": None, "corpus-id": "d"}], r"^qrels row 0 query-id must be .*; got None"),
        ([{"query-id": "q", "corpus-id": "d"}] * 2, r"^qrels row 1 judges .* second time; got 'd'"),
        ([("q", "d")], r"^qrels row 0 is no dict"),
        (7, r"^qrels is nothing that holds rows"),
    ],
)  # fmt: skip
def test_judgments_that_are_none_are_refused(qrels, message):
    with pytest.raises(UserError, match=message):
        keep_task({"q": "a"}, {"d": "b", "blank": " "}, qrels)


@pytest.mark.parametrize(
    ("queries", "documents", "message"),
    [
        ({"q": None}, ["b"], r"^queries q text must be a text; got None\. Give a text\.$"),
        ([" "], ["b"], r"^queries row 0 text is empty; got ' '"),
        (["a"], "abc", r"^documents is nothing that holds rows; got 'str'"),
        (["a"], [{"_id": "x", "txt": "b"}], r"^documents row 0 has no column 'text'; got \['_id', 'txt'\]"),
        (["a"], {"0": 3}, r"^documents 0 text must be a text; got 3"),
        (["a"], [{"_id": 0, "text": "b"}, {"_id": "0", "text": "c"}], r"^documents row 1 has the id of an earlier one; got '0'"),
        (["a"], [{"_id": None, "text": "b"}], r"^documents row 0 _id must be .*; got None"),
        (["a"], {"x\ty": "b"}, r"^documents x\\ty _id is empty or has a tab .*; got 'x\\ty'"),
    ],
)  # fmt: skip
def test_texts_that_are_none_are_refused_where_they_were_given(queries, documents, message):
    with pytest.raises(UserError, match=message):
        keep_task(queries, documents, {"0": ["0"]})


def test_whole_numbers_of_frames_are_grades_even_where_the_column_has_gaps():
    judged = pd.DataFrame({"query-id": ["0"], "corpus-id": [0], "score": [2.0]})
    assert load_retrieval_task(keep_task(["a"], ["b"], judged)).qrels == {"0": {"0": 2}}


def test_a_task_in_a_recipe_lacks_no_part_and_is_named_by_its_section():
    task = {"queries": ["a"], "documents": ["b"], "qrels": {"0": ["1"]}}
    with pytest.raises(UserError, match=r"^evaluation\.qrels of query 0 names a document"):
        keep_given({"evaluation": task})
    with pytest.raises(UserError, match=r"^validation\.documents is missing\. Give queries, doc"):
        keep_given({"validation": {"queries": ["a"], "qrels": {"0": ["1"]}}})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "answr": "b"}, r"^mine row 1 has no column for the positive; got \['query', 'answr'\]"),
        ({"query": "q", "positive": None}, r"^mine row 1 has a query without positives; got 'q'"),
        ({"query": None, "positive": "b"}, r"^mine row 1 query must be a text; got None"),
        ({"query": "q", "positive": 3}, r"^mine row 1 positive must be a text; got 3"),
        ({"query": "\ud800", "positive": "b"}, r"^mine row 1 holds half of a surrogate pair"),
    ],
)  # fmt: skip
def test_mistakes_in_rows_are_named_where_the_rows_were_given(row, message):
    config = SourceConfig(path=str(keep_rows([ROWS[0], row], "mine")))
    with pytest.raises(UserError, match=message) as caught:
        check_early(config)
    assert "rows.jsonl" not in str(caught.value)
    assert open_source(config).place == "mine"


def test_tables_show_that_rows_were_given_and_keep_other_paths(tmp_path):
    content = {"data": {"sources": [{"path": str(keep_rows(ROWS))}]}}
    (moved,) = copy_given(content, tmp_path / "given", tmp_path / "given")["data"]["sources"]
    assert name_given(str(keep_rows(ROWS))) == name_given(moved["path"]) == "given in memory"
    task = keep_task(["a"], ["b"], {"0": ["0"]})
    assert name_given(str(task)) == "given in memory"
    assert name_given("given/rows.jsonl") == "given/rows.jsonl"


def test_a_recipe_gets_paths_in_the_place_of_what_it_holds(tmp_path):
    given = {
        "data": {"sources": [{"rows": iter(ROWS), "weight": 2.0}, {"path": tmp_path / "x.jsonl"}]},
        "evaluation": {"queries": {"q": "a"}, "documents": {"d": "b"}, "qrels": {"q": ["d"]}},
        "validation": {"path": "beir"},
    }
    content = copy_sections(given)
    keep_given(content)
    assert "rows" in given["data"]["sources"][0], "what the user gave is left as it was"
    first, second = content["data"]["sources"]
    assert first == {"weight": 2.0, "path": str(keep_rows(ROWS))}
    assert second == {"path": str(tmp_path / "x.jsonl")}
    assert Path(content["evaluation"]["path"]).name == "in_memory"
    assert content["validation"] == {"path": "beir"}

    moved = copy_given(content, tmp_path / "run", tmp_path / "run")
    assert lines(Path(moved["data"]["sources"][0]["path"])) == ROWS
    assert Path(moved["data"]["sources"][0]["path"]).is_relative_to(tmp_path / "run")
    assert load_retrieval_task(moved["evaluation"]["path"]).queries == ["a"]
    assert moved["data"]["sources"][1] == second


def test_a_relevant_document_may_come_after_one_that_is_not():
    task = load_retrieval_task(keep_task({"q": "cat"}, ["a", "b"], {"q": {"0": 0, "1": 2}}))
    assert task.qrels == {"q": {"0": 0, "1": 2}}
