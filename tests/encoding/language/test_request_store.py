"""Kept answers: found again by what was asked, whatever a kill left behind them."""

import json

import pytest

from embedtrain.encoding.language import request_store
from embedtrain.encoding.language.chat import Reply, Request, Turn
from embedtrain.encoding.language.request_store import RequestStore
from embedtrain.errors import UserError

ASKED = Request((Turn("user", "x"),))
REPLY = Reply("a ü\u2028b", "stop", 12, 3, -0.5, "fp", 0.25, 2)


def parts(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_answer_is_found_again_as_it_was(tmp_path):
    empty = Reply("", "length")
    with RequestStore(tmp_path) as store:
        store.keep("k", REPLY)
        store.keep("e", empty)
        assert store.find("k") == REPLY
    with RequestStore(tmp_path) as again:
        assert (again.find("k"), again.find("e"), again.find("other")) == (REPLY, empty, None)
        assert len(again) == 2
    assert parts(tmp_path) == ["part-00000.jsonl"]


def test_nothing_is_written_where_nothing_is_kept(tmp_path):
    with RequestStore(tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_passed_over_and_never_written_behind(tmp_path, cut):
    with RequestStore(tmp_path) as store:
        store.keep("k", REPLY)
        store.keep("l", REPLY)
    file = tmp_path / "part-00000.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    with RequestStore(tmp_path) as again:
        assert again.find("k") == REPLY
        assert "l" not in again
        again.keep("m", REPLY)
    with RequestStore(tmp_path) as third:
        assert "k" in third
        assert "m" in third
    assert parts(tmp_path) == ["part-00000.jsonl", "part-00001.jsonl"]


@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", b"\xff"])
def test_a_line_that_is_none_of_ours_is_named(tmp_path, line):
    with RequestStore(tmp_path) as store:
        store.keep("k", REPLY)
    with (tmp_path / "part-00000.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UserError, match=r"part-00000.jsonl:2 is no kept answer.*asked again"):
        RequestStore(tmp_path)


def test_parts_are_no_larger_than_they_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(request_store, "PART_BYTES", 300)
    with RequestStore(tmp_path) as store:
        for name in range(8):
            store.keep(str(name), REPLY)
    assert len(parts(tmp_path)) > 2
    with RequestStore(tmp_path) as again:
        assert all(str(name) in again for name in range(8))


def test_the_bill_is_that_of_all_runs_with_what_nobody_knows_at_its_most(tmp_path):
    with RequestStore(tmp_path) as store:
        first = store.begin("k", 100, 64)
        store.fail(first, "HTTP 500", (0, 0))
        second = store.begin("k", 100, 64)
        store.fail(second, "cut", None)
        third = store.begin("k", 100, 64)
        assert [name[-2:] for name in (first, second, third)] == [":1", ":2", ":3"]
        store.keep("k", REPLY, third)
        store.begin("l", 50, 64)  # and killed
    with RequestStore(tmp_path) as again:
        bill = again.bill()
        assert (bill.requests, bill.answers, bill.unknown) == (4, 1, 2)
        assert (bill.prompt_tokens, bill.completion_tokens) == (12, 3)
        assert bill.both() == (12 + 150, 3 + 128)
        again.begin("n", 1000, 64)
        assert again.bill(under_way=False) == bill.__class__(5, 1, 12, 3, 2, 150, 128)
        assert again.bill().unknown == 3
        assert again.begin("l", 50, 64) == "l:2"


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.1}, {"top_p": 0.9}, {"seed": 1}, {"max_tokens": 65}, {"one_line": False},
        {"schema": "{}"}, {"attempt": 1}, {"turns": (Turn("user", "x "),)}, {"turns": (Turn("system", "x"),)},
    ],
)  # fmt: skip
def test_whatever_changes_an_answer_changes_its_name(change):
    assert ASKED.key("model") != ASKED.__class__(**{"turns": ASKED.turns, **change}).key("model")
    assert ASKED.key("model") == Request((Turn("user", "x"),)).key("model") != ASKED.key("other")


def test_lines_are_ascii_and_hold_what_came(tmp_path):
    with RequestStore(tmp_path) as store:
        store.keep("k", REPLY)
    (line,) = (tmp_path / "part-00000.jsonl").read_bytes().splitlines()
    assert line.isascii()
    assert json.loads(line)["text"] == REPLY.text
