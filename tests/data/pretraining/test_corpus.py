import gzip
import json

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from embedtrain.data.pretraining.corpus import CorpusConfig, open_corpus
from embedtrain.errors import UserError


def texts(path, **settings) -> list[str]:
    return [text for _, text in open_corpus(CorpusConfig(path=str(path), **settings)).documents()]


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n \nthree\nfour\n", encoding="utf-8")
    return path


def test_a_document_of_plain_text_is_a_line_a_paragraph_or_a_file(plain):
    assert texts(plain) == ["one", "two", "", "", "three", "four"]
    assert texts(plain, documents="paragraph") == ["one\ntwo", "three\nfour"]
    assert texts(plain, documents="file") == ["one\ntwo\n\n \nthree\nfour"]


def test_a_translation_follows_its_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"a": f"a{n}", "b": f"b{n}"}) + "\n" for n in range(3)))
    assert texts(path, column="a", translation="b", limit=2) == ["a0", "b0", "a1", "b1"]
    assert texts(path, column="a", limit=2) == ["a0", "a1"]


def test_plain_text_has_no_translation(plain):
    with pytest.raises(UserError, match="translation needs rows with columns"):
        texts(plain, translation="b")


def test_places_name_the_line_where_a_document_begins(plain):
    corpus = open_corpus(CorpusConfig(path=str(plain), documents="paragraph"))
    assert [place for place, _ in corpus.documents()] == [f"{plain}:1", f"{plain}:5"]


def test_every_format_gives_the_same_texts(tmp_path):
    rows = [
        {"title": "T", "text": "a b"},
        {"title": "", "text": "c"},
        {"title": None, "text": None},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines)
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write(lines)
    write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("title,text\nT,a b\n,c\n,\n")
    (tmp_path / "beir").mkdir()
    (tmp_path / "beir" / "corpus.jsonl").write_text(lines)
    (tmp_path / "saved").mkdir()
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved" / "data")
    for name in ("rows.jsonl", "rows.jsonl.gz", "rows.parquet", "rows.csv", "beir", "saved/data"):
        assert texts(tmp_path / name) == ["T a b", "c", ""], name


def test_a_glob_reads_all_files_in_order(tmp_path):
    for name in "ba":
        (tmp_path / f"{name}.txt").write_text(name + "\n")
    assert texts(tmp_path / "*.txt") == ["a", "b"]


def test_a_named_column_comes_without_its_title(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"title": "T", "body": "b"}\n')
    assert texts(path, column="body") == ["b"]


def test_a_limit_keeps_the_first_documents(plain):
    assert texts(plain, limit=2) == ["one", "two"]


def test_the_fingerprint_follows_content_and_settings_but_not_weight(plain, tmp_path):
    def fingerprint(path=plain, **settings):
        return open_corpus(CorpusConfig(path=str(path), **settings)).fingerprint

    assert fingerprint() == fingerprint(weight=2.0)
    assert fingerprint() != fingerprint(documents="file")
    other = tmp_path / "b.txt"
    other.write_text("one\n")
    assert fingerprint(other) != fingerprint()


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ('{"words": "a"}\n', {}, r"x.jsonl:1 has no column text or .*; got \['words'\]"),
        ('{"text": "a"}\n', {"column": "body"}, "has no column body"),
        ('{"text": 3}\n', {}, "x.jsonl:1 text must be a text; got 3"),
    ],
)
def test_rows_without_a_text_are_named(tmp_path, content, settings, message):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        texts(path, **settings)


def test_a_path_that_holds_no_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds pairs, not texts"):
        open_corpus(CorpusConfig(path="python_docs"))
    with pytest.raises(UserError, match="does not exist"):
        texts(tmp_path / "missing.txt")
