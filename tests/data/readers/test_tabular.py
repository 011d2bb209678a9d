import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.data.examples import Example
from embedtrain.data.sources import SourceConfig, open_source
from embedtrain.errors import UserError

ROWS = [
    {"query": "a, b", "positive": 'say "x"\nnew line', "negative": "n1"},
    {"query": "ü", "positive": "p2", "negative": "n2"},
]
EXAMPLES = [Example(row["query"], (row["positive"],), (row["negative"],)) for row in ROWS]


def write(path, text):
    path.write_text(text, "utf-8")
    return path


def examples(path, **config):
    return list(open_source(SourceConfig(path=str(path), **config)).examples())


def write_jsonl(path, rows):
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path, delimiter=","):
    lines = [["query", "positive", "negative"], *([*row.values()] for row in ROWS)]
    quoted = [
        delimiter.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines
    ]
    return write(path, "\n".join(quoted) + "\n")


def test_every_format_reads_the_same_rows_as_the_same_examples(tmp_path):
    paths = [
        write_jsonl(tmp_path / "a.jsonl", ROWS),
        write_csv(tmp_path / "a.csv"),
        write_csv(tmp_path / "a.tsv", "\t"),
        tmp_path / "a.csv.gz",
        tmp_path / "a.parquet",
    ]
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for path in paths:
        assert examples(path) == EXAMPLES, path


def test_a_named_format_wins_over_the_ending(tmp_path):
    write_csv(tmp_path / "a.txt", "\t")
    assert examples(tmp_path / "a.txt", format="tsv") == EXAMPLES


def test_a_folder_and_a_glob_are_read_in_the_order_of_their_names(tmp_path):
    for name, row in zip("ba", reversed(ROWS), strict=True):
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
        write_jsonl(tmp_path / f"{name}.jsonl", [row])
    assert examples(tmp_path) == EXAMPLES
    assert examples(tmp_path / "*.jsonl") == EXAMPLES


def test_parquet_knows_its_length_and_a_limit_cuts_it(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    assert open_source(SourceConfig(path=path)).length == 2
    limited = open_source(SourceConfig(path=path, limit=1))
    assert limited.length == 1
    assert list(limited.examples()) == EXAMPLES[:1]


def test_a_parquet_row_may_hold_lists(tmp_path):
    rows = [{"query": "q", "positive": ["a", "b"], "negatives": ["c"], "scores": [3.0, 2.0, 1.0]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert examples(tmp_path) == [Example("q", ("a", "b"), ("c",), (3.0, 2.0, 1.0))]


def test_csv_scores_are_numbers(tmp_path):
    path = write(tmp_path / "a.csv", "query,positive,negative,scores\nq,p,n,1.5\n")
    with pytest.raises(UserError, match=r"a\.csv:2 has 1 scores for 1 positives and 1 negatives"):
        examples(path)
    path = write(tmp_path / "a.csv", "query,positive,pos_scores,neg_scores\nq,p,1.5,\n")
    assert examples(path) == [Example("q", ("p",), (), (1.5,))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,positive\n\nq,p\nq,p,extra\n", r"a\.csv:4 has 3 cells under 2 columns"),
        ('query,positive\n"q,p\n', r"a\.csv:2 is not valid CSV"),
        ('query,positive\nq,p\n"q,p\nq,p\nq,p\n', r"a\.csv:3 is not valid CSV"),
        ("query,positive,query\nq,p,q\n", r"a\.csv:1 names a column twice; got 'query'"),
        ("query,positive\n", r"a\.csv holds no example"),
        ("", r"a\.csv is empty"),
        ("query,text\nq,p\n", r"a\.csv:2 has no column for the positive; got \['query', 'text'\]"),
    ],
)
def test_a_bad_csv_is_refused_with_its_line(tmp_path, text, message):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(UserError, match=message):
        examples(path)


def test_a_cell_of_csv_may_be_long(tmp_path):
    long = "word " * 100_000
    path = write(tmp_path / "a.csv", f"query,positive\nq,{long}\n")
    assert examples(path)[0].positives == (long,)


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", "PAR1 and nothing else")
    with pytest.raises(UserError, match=r"a\.parquet cannot be read; got 'Parquet magic"):
        examples(path)


def test_nan_in_json_is_refused_with_its_line(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"query": "q", "positive": "p", "scores": [NaN]}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1 scores must be finite; got nan"):
        examples(path)


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(num_rows):
        path = write_jsonl(
            tmp_path / f"{num_rows}.jsonl", [ROWS[0] | {"pad": "x" * 10_000}] * num_rows
        )
        source = open_source(SourceConfig(path=str(path)))
        tracemalloc.start()
        assert sum(1 for _ in source.examples()) == num_rows
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(10)
    assert peak(500) < peak(50) + 200_000  # of 5 MB
