import pytest
from pydantic import ValidationError

from embedtrain.data.examples import Example, Source, SourceConfig, fingerprint_of
from embedtrain.errors import UserError

CONFIG = SourceConfig(path="x.jsonl")


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        SourceConfig(path="x", pathh="y")
    with pytest.raises(ValidationError, match="Extra inputs"):
        SourceConfig(path="x", columns={"querry": "y"})


@pytest.mark.parametrize("bad", [{"weight": 0}, {"limit": 0}, {"format": "xlsx"}, {"path": 3}])
def test_a_setting_of_the_wrong_kind_is_refused(bad):
    with pytest.raises(ValidationError):
        SourceConfig(**({"path": "x"} | bad))


def test_the_fingerprint_follows_what_changes_the_examples_and_nothing_else():
    one = fingerprint_of(CONFIG, "content")
    assert fingerprint_of(CONFIG, "other") != one
    for change in (
        {"limit": 1},
        {"split": "dev"},
        {"columns": {"query": "q"}},
        {"format": "jsonl"},
    ):
        assert fingerprint_of(SourceConfig(path="x.jsonl", **change), "content") != one
    moved = SourceConfig(path="y.jsonl", weight=2.0)
    assert fingerprint_of(moved, "content") == one


def test_examples_start_anew_at_each_call_and_stop_at_the_limit():
    rows = [Example(str(i), ("p",)) for i in range(5)]
    source = Source(SourceConfig(path="x", limit=3), "x", "f", lambda: iter(rows))
    assert list(source.examples()) == list(source.examples()) == rows[:3]


def test_a_source_without_examples_is_refused():
    source = Source(CONFIG, "x.jsonl", "f", lambda: iter([]))
    with pytest.raises(UserError, match=r"x\.jsonl holds no example"):
        list(source.examples())
