"""A question behind the turns of its conversation."""

import pytest

from embedtrain.contract.spans import alone, unmark
from embedtrain.data.examples import Columns
from embedtrain.data.guide_texts import guide_texts
from embedtrain.data.readers.history import with_history
from embedtrain.data.readers.rows import RowReader
from embedtrain.errors import UserError

TURNS = [{"role": "user", "text": "what is curl?"}, {"role": "assistant", "text": "a tool"}]


def test_the_question_stands_last_and_a_guide_reads_it_written_out():
    reader = RowReader(Columns(history="history", guide_text="rewritten"))
    row = {
        "history": TURNS,
        "query": "who made it?",
        "rewritten": "who made curl?",
        "positive": "Daniel",
    }
    example = reader.read(row, "line 1")
    assert example.query == "user: what is curl?\nassistant: a tool\nuser: who made it?"
    assert guide_texts(example, "rewritten") == ("who made curl?", [("document", "Daniel")])
    assert RowReader(Columns()).read(row, "line 1").query == "who made it?"


def test_a_first_question_has_no_history_and_turns_may_be_texts():
    assert with_history("a", None, "x") == with_history("a", [], "x") == "user: a"
    assert with_history("a", ["b "], "x") == "user: b\nuser: a"


def test_the_question_may_be_the_span_of_its_conversation():
    reader = RowReader(Columns(history="history", marks_query=True))
    row = {"history": TURNS, "query": "who made it?", "positive": "Daniel"}
    query = reader.read(row, "line 1").query
    assert alone(query) == "who made it?"
    assert unmark(query)[0] == "user: what is curl?\nassistant: a tool\nuser: who made it?"
    with pytest.raises(ValueError, match="name its history"):
        Columns(marks_query=True)


@pytest.mark.parametrize("wrong", ["text", [1], [{"role": "user"}], [" "]])
def test_what_is_no_history_is_refused(wrong):
    with pytest.raises(UserError, match="turn"):
        with_history("a", wrong, "line 1 history")
