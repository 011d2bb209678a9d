"""Negatives by swapped instructions: what answers the query as another task asks, and never what answers its own."""

import pytest

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.data.swapped import with_swapped_negatives
from embedtrain.errors import UserError

CODE = [
    {"query": "sort a list", "positive": "sorted(x)", "negatives": ["max(x)"]},
    {"query": "red cat", "positive": ["cat()", "same()"]},
    {"query": "alone", "positive": "one()"},
]
PROSE = [
    {
        "query": "sort a list",
        "positive": ["Sorting puts in order.", "max(x)"],
        "scores": [2, 1],
        "teacher_gram": [0.5],
    },
    {"query": "red cat", "positive": ["A cat is red.", "same()"]},
]
AGAIN = [{"query": "sort a list", "positive": "x.sort()"}]


@pytest.fixture
def sources(write_jsonl):
    paths = [
        write_jsonl(rows, f"{number}.jsonl") for number, rows in enumerate((CODE, PROSE, AGAIN))
    ]
    return [open_source(SourceConfig(path=str(path))) for path in paths]


def negatives(source):
    return [row.negatives for row in source.examples()]


def test_positives_of_other_tasks_become_negatives_of_the_same_query(sources):
    code, prose, again = with_swapped_negatives(sources, ["code", "prose", "code"], 9)
    assert negatives(code) == [("max(x)", "Sorting puts in order."), ("A cat is red.",), ()]
    assert negatives(prose) == [("sorted(x)", "x.sort()"), ("cat()",)]
    assert negatives(again) == [("Sorting puts in order.", "max(x)")]


def test_a_task_in_several_wordings_is_told_by_its_positives(sources):
    """What answers the query under its own instruction is no negative, whichever source says so."""
    wordings = with_swapped_negatives([sources[0], sources[0]], ["find code", "which code"], 9)
    assert [negatives(one) for one in wordings] == [[("max(x)",), (), ()]] * 2


def test_rows_get_as_many_as_are_wanted_and_lose_their_scores(sources):
    _, prose, _ = with_swapped_negatives(sources, ["code", "prose", "code"], 1)
    first, second = prose.examples()
    assert first.teacher_gram == ()
    assert (first.negatives, first.scores, second.negatives) == (("sorted(x)",), (), ("cat()",))


def test_another_instruction_or_number_is_other_data(sources):
    settings = ((["a", "b", "a"], 1), (["a", "b", "a"], 2), (["a", "b", "c"], 1))
    found = [
        tuple(one.fingerprint for one in with_swapped_negatives(sources, *setting))
        for setting in settings
    ]
    again = with_swapped_negatives(sources, *settings[0])
    assert found[0] == tuple(one.fingerprint for one in again)
    assert all(len(set(every)) == 3 for every in zip(*found, strict=True))


def test_sources_without_a_common_query_are_refused(sources):
    with pytest.raises(UserError, match=r"swapped_negatives finds no query under two"):
        with_swapped_negatives(sources[:2], [None, None], 1)
