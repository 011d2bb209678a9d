import pytest

from embedtrain.data.sources import SourceConfig, detect_format, matching_files, open_source
from embedtrain.errors import UserError


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jsonl", "jsonl"),
        ("a.jsonl.gz", "jsonl"),
        ("a.csv", "csv"),
        ("a.tsv.gz", "tsv"),
        ("a.parquet", "parquet"),
        ("beir/corpus.jsonl", "beir"),
        ("parquet/0.parquet", "parquet"),
        ("other/data/0.parquet", "datasets"),
    ],
)
def test_the_format_is_found_from_the_name_or_the_contents(tmp_path, name, found):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    parts = name.split("/")
    assert detect_format(str(tmp_path / parts[0])) == found


def test_what_is_no_path_is_a_hub_id():
    assert detect_format("python_docs") == "python_docs"
    assert detect_format("squad") == "datasets"
    assert detect_format("sentence-transformers/all-nli") == "datasets"


@pytest.mark.parametrize("path", ["data/a.jsonl", "./a", "/a/b", "a/b/c", "x.parquet"])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(path):
    with pytest.raises(UserError, match="does not exist"):
        open_source(SourceConfig(path=path))


def test_an_unknown_ending_is_refused(tmp_path):
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(UserError, match=r"has an unknown ending; got 'a\.xlsx'"):
        open_source(SourceConfig(path=str(tmp_path / "a.xlsx")))


def test_a_pattern_without_a_match_is_refused(tmp_path):
    with pytest.raises(UserError, match="matches no file"):
        open_source(SourceConfig(path=f"{tmp_path}/*.jsonl"))


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    (tmp_path / "a[1].jsonl").touch()
    assert matching_files(str(tmp_path / "a[1].jsonl")) == [tmp_path / "a[1].jsonl"]


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_text('{"query": "q", "positive": "p"}\n', "utf-8")
    assert len(list(open_source(SourceConfig(path="~/a.jsonl")).examples())) == 1
