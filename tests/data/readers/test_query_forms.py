"""Several forms of a query from a file."""

import pytest

from embedtrain.data.readers.query_forms import Form, read_query_forms
from embedtrain.errors import UserError

IDS, QUERIES = ["q1", "q2"], ["cats", "dogs"]


def read(write_jsonl, *rows):
    return read_query_forms(write_jsonl(rows, "query_forms.jsonl"), IDS, QUERIES)


def test_the_query_itself_comes_first_and_rows_of_other_queries_are_passed_over(write_jsonl):
    found = read(
        write_jsonl,
        {"_id": "q1", "form": "hyde-0", "kind": "document", "text": "a cat purrs", "weight": 0.5},
        {"_id": "elsewhere", "form": "x", "text": "y"},
        {"_id": "q1", "form": "rewrite", "text": "felines"},
    )
    assert found == [
        [
            Form("original", "cats"),
            Form("hyde-0", "a cat purrs", is_document=True, weight=0.5),
            Form("rewrite", "felines"),
        ],
        [Form("original", "dogs")],
    ]


def test_forms_that_say_the_same_are_one_and_those_of_no_weight_none(write_jsonl):
    found = read(
        write_jsonl,
        {"_id": "q1", "form": "again", "text": "cats", "weight": 2},
        {"_id": "q1", "form": "read-as-answer", "kind": "document", "text": "cats"},
        {"_id": "q2", "form": "original", "weight": 0},
        {"_id": "q2", "form": "rewrite", "text": "hounds"},
        {"_id": "q2", "form": "worse", "text": "wolves", "weight": 0.0},
    )
    assert found[0] == [Form("original", "cats", weight=3.0), Form("read-as-answer", "cats", True)]
    assert found[1] == [Form("rewrite", "hounds")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"_id": "q1", "text": "x"}, r"jsonl:1 does not name its form"),
        ({"_id": "q1", "form": "a", "text": " "}, r"jsonl:1 has no text; got ' '"),
        ({"_id": "q1", "form": "a", "text": "x", "kind": "answer"}, r"unknown kind; got 'answer'"),
        ({"_id": "q1", "form": "a", "text": "x", "weight": -1}, r"no number of 0 or more; got -1"),
        ({"_id": "q1", "form": "a", "text": "x", "weight": "1"}, r"no number of 0 or more"),
        ({"_id": "q1", "form": "a", "text": "x", "weight": True}, r"no number of 0 or more"),
        ({"_id": "q9", "form": "a", "text": "x"}, r"forms of none of the queries"),
        ({"_id": "q1", "form": "original", "weight": 0}, r"query q1 has no form that weighs"),
    ],
)
def test_rows_that_cannot_be_used_are_named(row, message, write_jsonl):
    with pytest.raises(UserError, match=message):
        read(write_jsonl, row)
    with pytest.raises(UserError, match="two forms of one name; got 'a'"):
        read(write_jsonl, *[{"_id": "q1", "form": "a", "text": "x"}] * 2)
