"""Every cell of the table of actions, and what stops them."""

import pytest

from embedtrain.mining.judgement.cascade import Verdict
from embedtrain.mining.judgement.decisions import decide, gate
from embedtrain.mining.judgement.pairs import Pair
from embedtrain.mining.judgement.settings import JudgeConfig

CONFIG = JudgeConfig(judge={"model": "m"})
TRUSTED = gate(0.8, CONFIG)


def verdict(role, p, *, query="q0", name="d0", by_people=False, doubt=0.0):
    pair = Pair(role, query, name, "query", f"text of {name}", "text", doubt, None, by_people)
    return Verdict(pair, p)


def action(role, p, earned=TRUSTED, *, by_people=False, guarded=lambda _: False):
    (found,), _ = decide([verdict(role, p, by_people=by_people)], CONFIG, earned, 100, guarded)
    return found.action, found.why


@pytest.mark.parametrize(
    ("role", "p", "expected"),
    [
        ("rejected", 0.9, ("relabel", "")),
        ("rejected", 0.89, ("drop", "")),
        ("rejected", 0.31, ("drop", "")),
        ("rejected", 0.3, ("regain", "")),
        ("negative", 0.9, ("relabel", "")),
        ("negative", 0.6, ("drop", "")),
        ("negative", 0.3, ("keep", "")),
        ("positive", 0.95, ("keep", "")),
        ("positive", 0.1, ("keep", "")),
        ("positive", 0.09, ("drop_positive", "")),
    ],
)
def test_every_cell_of_the_table(role, p, expected):
    assert action(role, p) == expected


def test_people_are_not_contradicted_and_what_measures_is_not_relabelled():
    assert action("positive", 0.0, by_people=True) == ("keep", "people")
    assert action("rejected", 0.99, guarded=lambda text: text == "text of d0") == ("drop", "guard")


@pytest.mark.parametrize("kappa", [None, 0.0, 0.19])
def test_a_judge_that_agrees_with_nobody_may_only_drop_candidates(kappa):
    earned = gate(kappa, CONFIG)
    assert action("rejected", 0.99, earned) == ("drop", "gate")
    assert action("negative", 0.99, earned) == ("drop", "gate")
    assert action("rejected", 0.1, earned) == ("keep", "gate")
    assert action("positive", 0.0, earned) == ("keep", "gate")


def test_a_judge_that_agrees_a_little_must_be_sure():
    earned = gate(0.3, CONFIG)
    assert action("rejected", 0.95, earned) == ("drop", "gate")
    assert action("rejected", 0.97, earned) == ("relabel", "")
    assert action("rejected", 0.1, earned) == ("regain", "")


def test_a_query_gets_its_most_probable_positives_only():
    verdicts = [verdict("rejected", 0.9 + 0.01 * n, name=f"d{n}") for n in range(7)]
    found, _ = decide(verdicts, CONFIG, TRUSTED, 100)
    assert [one.action for one in found] == ["drop", "drop", *["relabel"] * 5]
    assert [one.why for one in found[:3]] == ["cap", "cap", ""]


def test_a_query_regains_those_nearest_to_its_positive():
    verdicts = [verdict("rejected", 0.1, name=f"d{n}", doubt=0.1 * n) for n in (3, 1, 2)]
    found, _ = decide(verdicts, CONFIG, TRUSTED, 100)
    assert [one.action for one in found] == ["keep", "regain", "regain"]


def test_a_document_that_answers_everything_answers_nothing():
    verdicts = [verdict("rejected", 0.99, query=f"q{n}", name="same") for n in range(21)]
    verdicts += [verdict("rejected", 0.99, query=f"q{n}", name="few") for n in range(20)]
    found, hubs = decide(verdicts, CONFIG, TRUSTED, 1000)
    assert hubs == ["same"]
    assert {(one.action, one.why) for one in found[:21]} == {("drop", "hub")}
    assert {one.action for one in found[21:]} == {"relabel"}
    # Of few queries 2 % are too few to tell: five may share a document.
    found, hubs = decide(verdicts[:5], CONFIG, TRUSTED, 10)
    assert not hubs
