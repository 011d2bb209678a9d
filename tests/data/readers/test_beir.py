import json

import pytest
from places import SHARED

from embedtrain.data.examples import Example
from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.sources import SourceConfig, load_task, open_source
from embedtrain.errors import UserError

RETRIEVAL = SHARED / "retrieval"

CORPUS = [
    {"_id": "d1", "title": "First", "text": "one"},
    {"_id": "d2", "title": "", "text": "two"},
    {"_id": "d3", "text": "drei ü"},
    {"_id": "d4", "title": "", "text": ""},
]
QUERIES = [
    {"_id": "q2", "text": "zwei ß?"},
    {"_id": "q1", "text": "eins?"},
    {"_id": "q3", "text": "unjudged"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td3\t1\nq1\td2\t0\nq2\td1\t1\n"


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "task")


def write(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS):
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = (
            row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows
        )
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    (folder / "qrels/train.tsv").write_text(qrels, "utf-8")
    return folder


def examples(folder, **config):
    return list(open_source(SourceConfig(path=str(folder), **config)).examples())


def test_judged_queries_become_examples_in_the_order_of_the_queries(folder):
    assert examples(folder) == [
        Example("zwei ß?", ("drei ü", "First one"), query_id="q2", document_ids=("d3", "d1")),
        Example("eins?", ("First one",), query_id="q1", document_ids=("d1",)),
    ]


def test_documents_judged_nought_are_negatives_only_on_request(folder):
    last = examples(folder, judged_negatives=True)[-1]
    assert (last.positives, last.negatives) == (("First one",), ("two",))
    assert last.document_ids == ("d1", "d2")


def test_a_task_holds_the_whole_corpus_and_the_judged_queries(folder):
    task = load_task(str(folder), "train")
    assert task.name == "task"
    assert task.query_ids == ["q2", "q1"]
    assert task.queries == ["zwei ß?", "eins?"]
    assert task.document_ids == ["d1", "d2", "d3", "d4"]
    assert task.documents == ["First one", "two", "drei ü", ""]
    assert task.qrels == {"q2": {"d3": 1, "d1": 1}, "q1": {"d1": 2, "d2": 0}}


def test_the_header_of_the_qrels_may_be_absent(folder):
    with_header = load_retrieval_task(folder, "train").qrels
    write(folder, qrels=QRELS.partition("\n")[2])
    assert load_retrieval_task(folder, "train").qrels == with_header


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(folder):
    expected = examples(folder)
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels/train.tsv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert examples(folder) == expected


def test_numbers_serve_as_ids(folder):
    write(folder, [{"_id": 1, "text": "a"}], [{"_id": 2, "text": "b"}], "2\t1\t1\n")
    assert examples(folder)[0].document_ids == ("1",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"corpus": [*CORPUS, CORPUS[0]]},
            r"corpus\.jsonl:5 has an id that an earlier line has; got 'd1'",
        ),
        ({"queries": [*QUERIES, QUERIES[1]]}, r"queries\.jsonl:4 has an id .*; got 'q1'"),
        (
            {"qrels": QRELS + "q1\td9\t1\n"},
            r"train\.tsv:6 names a document that corpus\.jsonl lacks; got 'd9'",
        ),
        (
            {"qrels": QRELS + "q9\td1\t1\n"},
            r"train\.tsv:6 names a query that queries\.jsonl lacks; got 'q9'",
        ),
        (
            {"qrels": QRELS + "q1\td1\t1\n"},
            r"train\.tsv:6 judges a query and document that an earlier",
        ),
        ({"qrels": QRELS + "q3\td1\t0\n"}, r"train\.tsv has a query without positives; got 'q3'"),
        ({"qrels": QRELS + "q3 d1 1\n"}, r"train\.tsv:6 has 1 cells instead of 3"),
        (
            {"qrels": QRELS + "q3\td1\tyes\n"},
            r"train\.tsv:6 must end in a whole number.*; got 'yes'",
        ),
        ({"qrels": QRELS + "q3\td1\t1.0\n"}, r"train\.tsv:6 must end in a whole .*; got '1\.0'"),
        ({"qrels": QRELS + f"q3\td1\t1{'0' * 400}\n"}, r"train\.tsv:6 must end in a whole number"),
        ({"qrels": QRELS + "\td1\t1\n"}, r"train\.tsv:6 names a query .*; got ''"),
        ({"qrels": ""}, r"train\.tsv is empty"),
        ({"corpus": [*CORPUS, "{"]}, r"corpus\.jsonl:5 is not valid JSON"),
        (
            {"corpus": [{"id": "d1", "text": "x"}]},
            r"corpus\.jsonl:1 has no column '_id'; got \['id', 'text'\]",
        ),
        ({"corpus": [{"_id": "d1", "text": 3}]}, r"corpus\.jsonl:1 text must be a text; got 3"),
        ({"corpus": [{"_id": None, "text": "x"}]}, r"corpus\.jsonl:1 _id must be a text"),
        (
            {"queries": [{"_id": "q1", "text": " "}, *QUERIES[:1]]},
            r"queries\.jsonl:1 is an empty text",
        ),
    ],
)
@pytest.mark.parametrize("read", [examples, lambda folder: load_retrieval_task(folder, "train")])
def test_a_mistake_is_refused_with_its_line(folder, change, message, read):
    write(folder, **change)
    with pytest.raises(UserError, match=message):
        read(folder)


def test_an_empty_document_is_refused_for_training_where_it_is_a_positive(folder):
    write(folder, qrels=QRELS + "q3\td4\t1\n")
    with pytest.raises(UserError, match=r"corpus\.jsonl:4 is an empty text that the qrels name"):
        examples(folder)


def test_an_unknown_split_lists_those_found(folder):
    (folder / "qrels/dev.tsv").touch()
    with pytest.raises(UserError, match=r"has no such split; got 'test'. Choose from dev, train\."):
        examples(folder, split="test")


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} does not exist"):
        examples(folder)


def test_a_byte_that_is_not_utf8_is_named_with_its_line(folder):
    with (folder / "corpus.jsonl").open("ab") as file:
        file.write(b'{"_id": "d9", "text": "\xff"}\n')
    with pytest.raises(UserError, match=r"corpus\.jsonl:5 is not UTF-8"):
        examples(folder)


def test_the_fingerprint_follows_every_file(folder):
    seen = {open_source(SourceConfig(path=str(folder))).fingerprint}
    for change in ({"corpus": CORPUS[:3]}, {"queries": QUERIES[:2]}, {"qrels": QRELS[:-7]}):
        write(folder, **change)
        seen.add(open_source(SourceConfig(path=str(folder))).fingerprint)
    assert len(seen) == 4


@pytest.mark.skipif(not RETRIEVAL.is_dir(), reason="the shared data sets are not here")
@pytest.mark.parametrize(
    ("name", "num_queries", "num_documents"), [("scifact", 300, 5183), ("cranfield", 225, 1400)]
)
def test_real_tasks_have_their_published_sizes(name, num_queries, num_documents):
    task = load_retrieval_task(RETRIEVAL / name)
    assert (len(task.queries), len(task.documents)) == (num_queries, num_documents)
    assert set(task.qrels) == set(task.query_ids)
