import json

import numpy as np
import pyarrow as pa
import pytest

from embedtrain.contract.texts import Contract, Tokenization
from embedtrain.data import arrow_columns, tokenized
from embedtrain.data.examples import SourceConfig, text_id
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import tokenize_source
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import load_backbone

CONTRACT = Contract(
    pooling="mean",
    similarity="cosine",
    query_prompt="",
    document_prompt="",
    query_length=16,
    document_length=16,
)


class CountingTokenization(Tokenization):
    count = 0

    def __call__(self, texts, side):
        CountingTokenization.count += len(texts)
        return super().__call__(texts, side)


@pytest.fixture(scope="module")
def tokenizer(bert):
    return load_backbone(bert).tokenizer


def build(path, tokenizer, folder, **changes):
    source = open_source(SourceConfig(path=str(path)))
    CountingTokenization.count = 0
    contract = CONTRACT.model_copy(update=changes)
    built = tokenize_source(source, CountingTokenization(tokenizer, contract), folder)
    return built, CountingTokenization.count


def contents(source):
    """Return all that a source holds, row by row."""
    found = []
    for row in range(len(source)):
        query = int(source.rows.values("query", [row])[0])
        lists = [source.rows.row(name, row).tolist() for name in ("positives", "negatives")]
        tokens = [source.tokens("document", index).tolist() for index in lists[0] + lists[1]]
        known = source.known_positives(query).tolist()
        found.append((query, lists, source.tokens("query", query).tolist(), tokens, known))
    return found


ROWS = [
    {"query": "red cat", "positive": ["cat", "a cat"], "negatives": ["dog"], "scores": [3, 2, 1]},
    {"query": "blue dog", "positive": "dog", "negatives": ["cat", "bird"], "scores": [1, 0, 0]},
    {"query": "red cat", "positive": "bird", "negatives": [], "scores": [1]},
]


def test_rows_point_to_distinct_texts(tokenizer, tmp_path, write_jsonl):
    source, count = build(write_jsonl(ROWS), tokenizer, tmp_path)
    assert len(source) == 3
    assert count == 2 + 4, "each distinct text is tokenised once"
    queries = source.rows.values("query", range(3))
    assert queries[0] == queries[2] != queries[1]
    positives = source.rows.row("positives", 0).tolist()
    ids = source.texts["document"].values("id", positives)
    assert ids.tolist() == [text_id("cat"), text_id("a cat")]
    assert source.rows.row("scores", 0).tolist() == [3, 2, 1]
    expected = Tokenization(tokenizer, CONTRACT)(["a cat"], "document")[0]
    assert source.tokens("document", positives[1]).tolist() == expected.tolist()


def test_known_positives_are_those_of_all_rows_with_the_same_query(
    tokenizer, tmp_path, write_jsonl
):
    source, _ = build(write_jsonl(ROWS), tokenizer, tmp_path)
    query = int(source.rows.values("query", [0])[0])
    assert set(source.known_positives(query)) == {text_id(t) for t in ("cat", "a cat", "bird")}


def test_a_second_start_tokenises_nothing_and_a_changed_contract_or_text_does(
    tokenizer, tmp_path, write_jsonl
):
    path = write_jsonl(ROWS)
    assert build(path, tokenizer, tmp_path)[1] > 0
    assert build(path, tokenizer, tmp_path)[1] == 0
    assert build(path, tokenizer, tmp_path, query_prompt="q: ")[1] > 0
    assert build(path, tokenizer, tmp_path, document_length=3)[1] > 0
    assert build(write_jsonl(ROWS[:2]), tokenizer, tmp_path)[1] > 0
    moved = path.rename(tmp_path / "moved.jsonl")
    assert build(moved, tokenizer, tmp_path)[1] == 0, "the content is the key, not the name"


def test_rows_are_the_same_whatever_the_block_sizes(tokenizer, tmp_path, pairs, monkeypatch):
    whole = contents(build(pairs, tokenizer, tmp_path / "whole")[0])
    monkeypatch.setattr(arrow_columns, "BLOCK", 7)
    monkeypatch.setattr(tokenized, "EXAMPLES_AT_ONCE", 3)
    small = contents(build(pairs, tokenizer, tmp_path / "small")[0])
    assert len(whole) == 40
    assert small == whole


def test_a_bad_row_leaves_nothing_behind(tokenizer, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"query": "a", "positive": "b"}\n{"query": "a"}\n')
    with pytest.raises(UserError, match=r"bad.jsonl:2"):
        build(path, tokenizer, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/tokenized/*"))


def test_the_report_counts_texts_at_the_limit(tokenizer, tmp_path, write_jsonl):
    rows = [{"query": "cat " * n, "positive": "dog"} for n in (1, 2, 30, 40)]
    report = build(write_jsonl(rows), tokenizer, tmp_path)[0].report
    assert report.num_rows == 4
    assert report.num_documents == 1
    assert report.query_full_ratio == 0.5
    assert max(report.query_lengths) == 16


def test_the_cache_is_plain_arrow_and_json(tokenizer, tmp_path, write_jsonl):
    build(write_jsonl(ROWS), tokenizer, tmp_path)
    files = sorted(p.name for p in tmp_path.glob("tokenized/*/*"))
    names = ["documents.arrow", "known.arrow", "queries.arrow", "report.json", "rows.arrow"]
    assert files == [*names, "seal.json"]
    report = next(tmp_path.glob("tokenized/*/report.json"))
    assert json.loads(report.read_text())["num_rows"] == 3


def test_several_processes_write_the_bytes_that_one_writes(
    tokenizer, tmp_path, write_jsonl, monkeypatch, sentences
):
    rows = [
        {"query": f"{one} 😀 {n}", "positive": [f"{one} {n % 7}", "cat"], "scores": [n, 0.5]}
        for n, one in enumerate(sentences)
    ]  # fmt: skip
    path = write_jsonl([*rows, *rows[:90]])  # whole blocks whose texts are all known
    monkeypatch.setattr(tokenized, "EXAMPLES_AT_ONCE", 40)
    build(path, tokenizer, tmp_path / "one")
    monkeypatch.setattr(tokenized, "BLOCKS_ALONE", 1)
    monkeypatch.setattr(tokenized, "BLOCKS_AHEAD", 2)
    monkeypatch.setattr("embedtrain.contract.processes.num_cores", lambda: 2)
    _, count = build(path, tokenizer, tmp_path / "two")
    assert 40 <= count < 100, "the rest was tokenised elsewhere"
    one, two = (sorted((tmp_path / name).rglob("*.*")) for name in ("one", "two"))
    assert [path.read_bytes() for path in two] == [path.read_bytes() for path in one]
    assert len(one) == 6


def test_lists_are_written_as_pyarrow_itself_writes_them():
    lists = [[1, 2], [], [3], np.zeros(0), np.arange(4)]
    for values in (lists[:3], [np.array(one) for one in lists], [[]]):
        for kind in (pa.int32(), pa.int64(), pa.int8(), pa.float32()):
            plain = [[int(number) for number in one] for one in values]
            expected = pa.array(plain, pa.list_(kind))
            found = arrow_columns._column(values, pa.list_(kind))
            assert found.equals(expected)
            streams = []
            for column in (found, expected):
                batch = pa.record_batch([column], ["a"])
                streams.append(batch.serialize().to_pybytes())
            assert streams[0] == streams[1]


@pytest.mark.parametrize("name", ["queries", "documents", "rows", "known"])
def test_a_damaged_cache_is_set_aside_and_built_again(
    name, tokenizer, tmp_path, write_jsonl, capsys
):
    path = write_jsonl(ROWS)
    before = contents(build(path, tokenizer, tmp_path / "cache")[0])
    [file] = (tmp_path / "cache").rglob(f"{name}.arrow")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    source, count = build(path, tokenizer, tmp_path / "cache")
    assert contents(source) == before
    assert count == 6
    assert capsys.readouterr().err.count("is damaged") == 1
