"""Sources that are functions of the user's."""

import sys

import pytest

from embedtrain.data.examples import SourceConfig
from embedtrain.data.pretraining.corpus import CorpusConfig, open_corpus
from embedtrain.data.sources import open_source
from embedtrain.errors import UserError

MODULE = """
count = 3
def rows(split):
    for number in range(count):
        yield {"query": f"{split} {number}", "positive": "red cat", "text": f"text {number}"}
def texts(split):
    return ["a"]
def nothing(split):
    return None
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_rows.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    import own_rows

    yield own_rows
    sys.modules.pop("own_rows")


def test_a_function_is_a_source_whose_fingerprint_follows_its_rows(own):
    source = open_source(SourceConfig(path="own_rows:rows", split="dev", limit=2))
    assert [example.query for example in source.examples()] == ["dev 0", "dev 1"]
    assert [example.query for example in source.examples()] == ["dev 0", "dev 1"]
    again = open_source(SourceConfig(path="own_rows:rows", split="dev", limit=2))
    assert again.fingerprint == source.fingerprint
    own.count = 4
    changed = open_source(SourceConfig(path="own_rows:rows", split="dev", limit=2))
    assert changed.fingerprint != source.fingerprint


def test_a_function_is_a_corpus_too(own):
    corpus = open_corpus(CorpusConfig(path="own_rows:rows"))
    assert list(corpus.documents())[1] == ("own_rows:rows row 2", "text 1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_rows:texts", r"^own_rows:texts row 1 is no dict; got 'a'"),
        ("own_rows:nothing", r"^own_rows:nothing gives no rows; got None\."),
        ("own_rows:count", r"^own_rows:count gives no rows; got 3\."),
        ("own_absent:rows", r"^own_absent:rows needs own_absent, which is not installed"),
    ],
)
def test_what_is_no_source_is_refused(own, name, message):
    with pytest.raises(UserError, match=message):
        list(open_source(SourceConfig(path=name)).examples())
