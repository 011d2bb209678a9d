"""What a model wrote becomes queries, or a problem in words; never an exception."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.encoding.language.chat import Reply
from embedtrain.synthesis.replies import first_line, json_queries

TWO = '{"queries": [{"slot": 1, "text": "a b"}, {"slot": 2, "text": "c d"}]}'
BOTH = {1: "a b", 2: "c d"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TWO, BOTH),
        (f"```json\n{TWO}\n```", BOTH),
        (f"Here you are: {TWO} Enjoy!", BOTH),
        (TWO.replace("}]}", "},],}"), BOTH),
        (json.dumps(json.loads(TWO)["queries"]), BOTH),
        ('{"slot": 2, "text": "c d"}\n{"slot": 1, "text": "a b"}', BOTH),
        (f'{{"queries": []}} {TWO}', BOTH),
        (TWO + TWO.replace("a b", "other"), BOTH),
        (TWO[:-10], {1: "a b"}),
        ('{"queries": [{"slot": "2", "query": "c,]  d"}]}', {2: "c,] d"}),
        ('{"queries": [{"slot": 3, "text": "x"}, {"slot": 1, "text": "\\"a b\\""}]}', {1: "a b"}),
        (f"<think>{TWO.replace('a b', 'no')}</think>{TWO}", BOTH),
    ],
)
def test_queries_go_to_the_slots_that_they_name(text, found):
    assert json_queries(Reply(text, "stop"), 2).by_slot == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "an empty answer"),
        ("<think>only thoughts", "an empty answer"),
        ("<html><body>Bad gateway</body></html>", "no JSON"),
        ("I am sorry, I cannot.", "no JSON"),
        ('{"answers": 7}', "JSON without a query"),
        ("[]", "JSON without a query|no JSON"),
        ('["a b", "c d"]', "queries that name no slot"),
        ('{"queries": [{"text": "a b"}, {"text": "c d"}]}', "queries that name no slot"),
        ('{"queries": "a b"}', "JSON without a query"),
        ("[" * 9000, "no JSON"),
    ],
)
def test_what_cannot_be_read_is_a_problem(text, problem):
    found = json_queries(Reply(text, "stop"), 2)
    assert not found.by_slot
    assert found.problem in problem.split("|")


@pytest.mark.parametrize(
    "text", ['["a b"]', '{"queries": ["a b"]}', '{"queries": [{"question": "a b"}]}']
)
def test_of_one_slot_a_query_that_names_none_is_its_own(text):
    assert json_queries(Reply(text, "stop"), 1).by_slot == {1: "a b"}


@given(st.text(alphabet='{}[]",:slotx1 \\n', max_size=60))
def test_nothing_that_a_model_writes_is_an_exception(text):
    reply = Reply(text, "stop")
    assert bool(json_queries(reply, 2).by_slot) != bool(json_queries(reply, 2).problem)
    assert isinstance(first_line(reply)[0], str)


@pytest.mark.parametrize(
    ("text", "finish", "found"),
    [
        (" who made it? ", "stop", ("who made it?", "stop")),
        ('"who made it?"', "stop", ("who made it?", "stop")),
        ("\u201ewer war es\u201c", "stop", ("wer war es", "stop")),
        ("\n\nwho made it?\nand then", "length", ("who made it?", "stop")),
        ("who made it?\n", "length", ("who made it?", "stop")),
        ("who made it and", "length", ("who made it and", "length")),
        ("", "stop", ("", "empty")),
        (" \n ", "length", ("", "empty")),
        ("<think>hm</think>\n\nwho?", "stop", ("who?", "stop")),
        ("<think>hm and", "length", ("", "length")),
        ("no", "content_filter", ("no", "content_filter")),
    ],
)
def test_the_first_line_is_the_query_and_whole_if_another_follows(text, finish, found):
    assert first_line(Reply(text, finish)) == found
