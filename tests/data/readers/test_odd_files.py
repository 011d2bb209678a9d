"""Whatever a file holds, a reader gives rows or one line that says what is wrong; it never does anything else."""

import gzip
import json
import os

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forks import fork
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedtrain.data.examples import SourceConfig
from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.sources import open_source
from embedtrain.errors import UserError
from embedtrain.mining.runs import _read_json, _read_trec
from embedtrain.workflows.encode.file import read_texts

ROWS = [{"query": f"q{n}", "positive": f"the answer {n} " * 5, "scores": [0.5]} for n in range(60)]


def outcome(read):
    """Return what was read, or the one line that says why nothing was."""
    try:
        return list(read())
    except UserError as error:
        found = str(error)
        assert "\n" not in found
        return found


def examples(path):
    return outcome(lambda: open_source(SourceConfig(path=str(path))).examples())


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(path):
    pq.write_table(pa.Table.from_pylist(ROWS), path, compression="zstd")
    return path.read_bytes()


def damaged(content, places=10):
    """Yield contents that are cut, and such with a changed byte, at places that are spread evenly."""
    for place in range(places):
        at = place * (len(content) - 1) // (places - 1)
        yield content[:at]
        yield content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :]


def read_damaged(make, read, places=10):
    path, content = make()
    for changed in damaged(content, places):
        path.write_bytes(changed)
        found = read(path)
        assert isinstance(found, list) or path.name in found


def survives(work):
    """Let a fork work: a crash of a library would end the tests."""
    done = fork(work)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("places", [8, pytest.param(400, marks=pytest.mark.prove)])
@pytest.mark.parametrize("kind", ["jsonl.gz", "parquet"])
def test_a_damaged_file_is_refused_or_read(kind, places, tmp_path):
    path = tmp_path / f"a.{kind}"

    def make():
        content = gzip.compress(jsonl(ROWS), mtime=0) if "gz" in kind else parquet(path)
        return path, content

    def encode(file):
        return outcome(lambda: read_texts(file, None))

    survives(lambda: [read_damaged(make, read, places) for read in (examples, encode)])


@pytest.mark.parametrize("places", [8, pytest.param(200, marks=pytest.mark.prove)])
def test_a_damaged_data_set_on_disk_is_refused_or_read(places, tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "set"))
    [path] = (tmp_path / "set").glob("*.arrow")
    content = path.read_bytes()

    def read(_):
        found = examples(tmp_path / "set")
        return found if isinstance(found, list) else f"{path.name} {found}"

    survives(lambda: read_damaged(lambda: (path, content), read, places))


LINES = {
    "number for a text": ('{"query": 3, "positive": "p"}', r":2 query must be a text; got 3"),
    "null": ('{"query": null, "positive": "p"}', ":2 query must be a text"),
    "half a pair": ('{"query": "\\ud800", "positive": "p"}', ":2 holds half of a surrogate pair"),
    "half a pair as a key": ('{"\\udc00": 1}', ":2 holds half of a surrogate pair"),
    "deep": ('{"query": ' + "[" * 100_000, ":2 is not valid JSON"),
    "deep and closed": ('{"query": ' + "[" * 5000 + '"\\u0041"' + "]" * 5000 + "}", ":2 "),
    "huge whole number": ('{"query": "q", "positive": "p", "scores": [1%s]}' % ("0" * 400), "scores must be finite"),
    "endless number": ('{"query": "q", "positive": "p", "scores": [1%s]}' % ("0" * 9000), ":2 is not valid JSON"),
    "huge exponent": ('{"query": "q", "positive": "p", "scores": [1e400]}', "scores must be finite"),
    "a list": ("[]", ":2 must be a JSON object"),
    "long": ('{"query": "' + "x" * 5_000_000, ":2 is not valid JSON"),
    "two lines in one": ('{"query": "q"} {"query": "q"}', ":2 is not valid JSON"),
    "NUL": ("\0", ":2 is not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_an_odd_line_of_json_is_named(name, tmp_path):
    line, message = LINES[name]
    path = write(tmp_path / "a.jsonl", '{"query": "q", "positive": "p"}\n' + line + "\n")
    found = examples(path)
    assert isinstance(found, str)
    assert f"{path}" in found
    assert message in found
    assert len(found) < 1000


def test_a_long_line_and_an_odd_id_are_read(tmp_path):
    row = {"query": "q", "positive": "word " * 1_000_000, "id": "a/../b\nc"}
    [example] = examples(write(tmp_path / "a.jsonl", json.dumps(row)))
    assert example.query_id == "a/../b\nc"
    assert len(example.positives[0]) == 5_000_000


def test_a_table_of_many_columns_is_read(tmp_path):
    names = ",".join(["query", "positive", *(f"c{n}" for n in range(100_000))])
    path = write(tmp_path / "a.csv", f"{names}\n" + "q" + ",p" * 100_001 + "\n")
    assert len(examples(path)) == 1


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    assert "a.jsonl is no ordinary file" in outcome(lambda: read_texts(tmp_path / "a.jsonl", None))
    os.mkfifo(tmp_path / "a.parquet")
    assert "is no ordinary file" in outcome(lambda: read_texts(tmp_path / "a.parquet", None))


any_file = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
cells = st.sampled_from(
    ["query", "positive", '"', '""', ",", "\n", "\r\n", "\0", "a", " ", "\ufeff", "é", "\t", "1", "{", "}", ":", '"a"', "[", "]", "1e999", "null", "\\ud800"]
)  # fmt: skip
contents = st.binary(max_size=60) | st.lists(cells, max_size=25).map(
    lambda some: "".join(some).encode()
)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
@any_file
@given(content=contents)
def test_any_content_is_read_or_refused_with_its_file(kind, content, tmp_path):
    path = write(tmp_path / f"a.{kind}", content)
    found = examples(path)
    assert isinstance(found, list) or str(path) in found


@any_file
@given(content=contents | st.lists(st.sampled_from(
    ["q1", "d1", "d2", "\t", "\n", "\r\n", "1", "-1", "1.0", "²", "٣", "1_0", " ", "9" * 30, "query-id"]
), max_size=20).map(lambda some: "".join(some).encode()))  # fmt: skip
def test_any_judgments_and_run_are_read_or_refused_with_their_file(content, tmp_path):
    (tmp_path / "qrels").mkdir(exist_ok=True)
    write(tmp_path / "corpus.jsonl", '{"_id": "d1", "text": "t"}\n{"_id": "d2", "text": "t"}\n')
    write(tmp_path / "queries.jsonl", '{"_id": "q1", "text": "t"}\n')
    path = write(tmp_path / "qrels" / "test.tsv", content)
    task = outcome(lambda: [load_retrieval_task(tmp_path)])
    assert str(path) in task if isinstance(task, str) else task[0].qrels
    for read in (_read_json, _read_trec):
        run = outcome(lambda read=read: [read(path)])
        assert isinstance(run, list) or str(path) in run
