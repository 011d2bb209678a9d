"""A ranking in TREC's format comes back whatever its ids are, and each line has six fields for any reader."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedtrain.errors import UserError
from embedtrain.evaluation.results.ranking_file import read_run, write_run

IDS = st.text(max_size=6)


@settings(max_examples=80)
@given(st.dictionaries(IDS, st.dictionaries(IDS, st.floats(-1, 1), min_size=1), max_size=3))
@example({"a b": {"": 0.5, "line\nbreak": 0.25, "\u2028": 0.125, "\ud800": 0.0}})
@example({"%41": {"A": 1.0, "%41": 0.5, "a%20b": 0.25, "a b": 0.125, "..": 0.0}})
def test_any_ids_come_back_from_lines_of_six_fields(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("run") / "a.trec"
    write_run(run, path, "tag")
    assert read_run(path) == run
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == sum(map(len, run.values()))
    assert all(len(line.split()) == 6 for line in lines)


def test_ordinary_ids_are_written_as_they_are_and_other_tools_runs_are_read(tmp_path):
    path = tmp_path / "a.trec"
    write_run({"q/1": {"a%20b": 0.5}}, path, "tag")
    assert path.read_text() == "q/1\tQ0\ta%20b\t1\t0.5\ttag\n"
    path.write_text("q1 Q0 d1 1 0.5 bm25\n\nq1 Q0 d2 2 4e-1 bm25\n")
    assert read_run(path) == {"q1": {"d1": 0.5, "d2": 0.4}}


@pytest.mark.parametrize(
    "line", ["q1 Q0 d1 1 0.5", "q1 Q0 d2 1 high tag", "q1 Q0 d1 2 0.4 tag", "\0"]
)
def test_a_line_that_is_none_is_named(tmp_path, line):
    path = tmp_path / "a.trec"
    path.write_text(f"q1 Q0 d1 1 0.5 tag\n{line}\n")
    with pytest.raises(UserError, match=r"a\.trec:2 "):
        read_run(path)


def test_a_file_that_is_no_text_is_the_users_mistake(tmp_path):
    (tmp_path / "a.trec").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_run(tmp_path / "a.trec")
