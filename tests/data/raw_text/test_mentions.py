"""Mentions of known names (KRISS) and texts that share a hashtag (HICL)."""

import json

import pytest

from embedtrain.contract.spans import unmark
from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.readers.units import read_units
from embedtrain.errors import UserError

ONTOLOGY = [
    {"entity": "Q1", "names": ["aspirin", "Acetylsalicylic acid"]},
    {"entity": "Q2", "names": ["cold", "common cold"]},
    {"entity": "Q3", "names": ["Cold", "freezing"]},
    {"entity": "Q1", "names": ["ASA"]},
]
TEXT = "Take acetylsalicylic acid for a common cold, not when it is cold; aspirins and asa differ."


@pytest.fixture
def names(write_jsonl):
    return str(write_jsonl(ONTOLOGY, "names.jsonl"))


def spans_of(text):
    plain, pieces = unmark(text)
    return [plain[start:end] for start, end in pieces]


def test_mentions_are_whole_names_of_one_entity(rows, names):
    found = rows([TEXT], pairs="mentions", names=names, mask_ratio=0)
    marked = [(spans_of(one.query), one.scores) for one in found]
    # "cold" is a name of two entities, and "aspirins" is none.
    assert marked == [
        (["acetylsalicylic acid"], (0.0,)), (["common cold"], (1.0,)), (["asa"], (0.0,)),
    ]  # fmt: skip
    assert all(one.positives == (one.query,) for one in found)
    assert unmark(found[1].query)[0] == TEXT


def test_a_hidden_name_is_nowhere_in_the_row(rows, names):
    texts = [f"In case {number} aspirin helped: ASA, to her." for number in range(30)]
    found = rows(texts, pairs="mentions", names=names, mask_ratio=0.5)
    hidden = [one for one in found if "[MASK]" in one.query]
    assert all(spans_of(one.query) == ["[MASK]"] for one in hidden)
    assert not any(name in one.query for one in hidden for name in ("aspirin", "ASA"))
    assert all(one.positives == (one.query,) for one in found)
    assert 15 < len(hidden) < 45
    assert rows(texts, pairs="mentions", names=names, mask_ratio=0.5, draw_seed=1) != found


def test_a_context_is_cut_on_both_sides(rows, names):
    words = [f"w{number}" for number in range(50)]
    [one] = rows([" ".join([*words, "ASA", *words])], pairs="mentions", names=names, mask_ratio=0)
    plain, _ = unmark(one.query)
    assert plain.split() == [*words[-32:], "ASA", *words[:32]]


def test_names_that_are_none_are_refused(rows, write_jsonl):
    for lines, message in (
        ([{"entity": "Q1"}], "is no entity with names"),
        ([ONTOLOGY[1], {"entity": "Q3", "names": ["cold", "common cold"]}], "of one entity alone"),
    ):
        path = str(write_jsonl(lines, "names.jsonl"))
        with pytest.raises(UserError, match=message):
            rows([TEXT], pairs="mentions", names=path)
    with pytest.raises(ValueError, match="pairs: mentions needs names"):
        rows([TEXT], pairs="mentions")


def test_mentions_are_searched_for_as_units_of_their_entities(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("m\\tQ1\\t1\n".replace("\\t", "\t"), "utf-8")
    mention = {"text": "He took aspirin.", "span": [8, 15]}
    for name, row in (
        ("corpus", {"_id": "Q1", "text": "aspirin"}),
        ("queries", {"_id": "m", **mention}),
        ("units", {"_id": "u", "document": "Q1", **mention}),
    ):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    assert spans_of(load_retrieval_task(tmp_path).queries[0]) == ["aspirin"]
    assert spans_of(read_units(tmp_path, ["Q1"]).texts[0]) == ["aspirin"]


def test_texts_with_a_tag_in_common_are_positives_without_it(rows):
    posts = [
        "Snow again #Winter",
        "Skating on the lake #winter #fun",
        "A joke #fun",
        "Rain #grey",
        "No tag",
    ]
    found = {one.query: one for one in rows(posts, pairs="hashtags")}
    assert {query: set(one.positives) for query, one in found.items()} == {
        "Snow again": {"Skating on the lake"},
        "Skating on the lake": {"Snow again", "A joke"},
        "A joke": {"Skating on the lake"},
    }


def test_of_many_texts_with_a_tag_few_are_shown_and_none_is_a_negative(rows):
    posts = [f"Post number {number} #all" for number in range(40)]
    found = rows(posts, pairs="hashtags")
    assert found == rows(posts, pairs="hashtags")
    for one in found:
        assert len(one.positives) == 8
        assert len({*one.positives, *one.not_negatives}) == 40
        assert "all" not in " ".join([one.query, *one.positives])
