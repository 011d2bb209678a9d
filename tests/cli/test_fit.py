"""What ``embedtrain fit`` cannot use is said in one line, before anything is written."""

import json

import pytest
from forks import embedtrain
from page_reader import read


def queries(folder, number=4, answer="page0.md"):
    path = folder / "queries.jsonl"
    rows = [{"query": f"what is {n}", "positive": answer} for n in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pages(folder, number=30):
    place = folder / "docs"
    place.mkdir()
    for n in range(number):
        text = f"# Page {n}\n\nHow to mend matter {n}: turn screw {n} to the left, then wait."
        (place / f"page{n}.md").write_text(text, encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["empty"], "empty"),
        (["scans"], "scans"),
        (["docs", "--llm", "http://127.0.0.1:1/v1?key=hidden1"], "EMBEDTRAIN_API_KEY"),
        (["docs", "--llm", "http://me:hidden1@127.0.0.1:1/v1"], "EMBEDTRAIN_API_KEY"),
        (["docs", "--pairs", "docs/page0.md"], "has an unknown ending"),
        (["docs", "--queries", "typo.jsonl"], "answered by a document that is not there"),
        (["docs", "--guard", "queries.jsonl"], "--guard is no BEIR folder"),
        (["docs", "--reranker", "http://127.0.0.1:1/v1"], "--reranker is no cross-encoder"),
        (["docs", "--budget", "1s"], "Give about"),
        (["docs", "--budget", "soon"], "is no length of time"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(bert, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    pages(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    queries(tmp_path, answer="page99.md").rename(tmp_path / "typo.jsonl")
    queries(tmp_path)
    done = embedtrain(["fit", *words, "--model", bert, "--output", tmp_path / "out"])
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last
    assert "hidden1" not in done.stderr + done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("forked_reloads")
def test_few_queries_of_people_are_measured_besides(bert, tmp_path):
    corpus = pages(tmp_path, 300)
    words = ["fit", corpus, "--queries", queries(tmp_path, 12, "page7.md"), "--model", bert]
    done = embedtrain([*words, "--budget", "20m", "--output", tmp_path / "out"])
    assert done.returncode in (0, 3), done.stderr
    assert "12 queries of people are measured besides" in " ".join(done.stdout.split())
    assert "Training ends when its part of the budget is over" in " ".join(done.stdout.split())
    assert "out/data/corpus.jsonl" in done.stdout.replace("\n", "")
    text = " ".join(read(tmp_path / "out/report.html").texts)
    assert (
        tmp_path / "out/gate/also-1/after.json"
    ).is_file() or "gives no query to train on" in text
