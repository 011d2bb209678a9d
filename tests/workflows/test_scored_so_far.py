"""What an unfinished scoring left behind."""

import pytest

from embedtrain.workflows.scored_so_far import added, begin, mark_done

ROWS = b"1\n2\n3\n4\n5"


@pytest.fixture
def places(tmp_path):
    partial, mark = tmp_path / "a.partial", tmp_path / "a.fingerprint"
    partial.write_bytes(ROWS)
    return partial, mark


def test_a_scoring_goes_on_behind_its_last_whole_block(places):
    mark_done(places[1], "data", {"pairs": 4})
    assert begin(*places, "data", 3) == (3, {"pairs": 4})
    assert places[0].read_bytes() == b"1\n2\n3\n"


@pytest.mark.parametrize("content", [b"other\n{}", b"\xff\xfe", b"data\n{bad", b"data\n[1]", None])
def test_other_rows_or_a_damaged_mark_are_begun_anew(places, content):
    if content is not None:
        places[1].write_bytes(content)
    assert begin(*places, "data", 3) == (0, {})
    assert places[0].read_bytes() == b""
    assert places[1].read_text().startswith("data\n")


def test_tallies_add_up_by_name():
    before = {"pairs": 4, "spent": {"tokens": 10}}
    assert added(before, {"pairs": 1, "spent": {"tokens": 2, "cost": 0.5}}) == {
        "pairs": 5, "spent": {"tokens": 12, "cost": 0.5},
    }  # fmt: skip
