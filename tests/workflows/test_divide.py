"""People's queries are divided into what chooses and what decides, and none is answered by what is not there."""

import json

import pytest

from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.errors import UserError
from embedtrain.workflows.divide import DivideStage, divide
from embedtrain.workflows.hold_out import HoldOutStage, hold_out_rows, write_beir


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def documents(number=40):
    return [
        (f"page{n}.md", f"This is the text of page {n} about matter {n}.") for n in range(number)
    ]


def corpus(folder):
    return write(
        folder / "corpus.jsonl", [{"_id": n, "title": "", "text": t} for n, t in documents()]
    )


def asked(folder, number, positive=lambda n: f"page{n}.md"):
    rows = [{"query": f"what is {n}", "positive": positive(n)} for n in range(number)]
    return write(folder / "queries.jsonl", rows)


@pytest.mark.parametrize(
    "positive",
    [
        lambda n: f"page{n}.md",
        lambda n: f"THIS is the text of page {n} about matter {n}.",
        lambda n: f"text of page {n} about matter",
    ],
)
def test_an_answer_is_an_id_a_text_or_words_of_one(tmp_path, positive):
    work = DivideStage(path=asked(tmp_path, 20, positive), corpus=corpus(tmp_path))
    folder = divide(work, tmp_path / "human")
    dev, test = (load_retrieval_task(folder, split) for split in ("dev", "test"))
    assert len(dev.queries) == len(test.queries) == 10
    assert not {*dev.queries} & {*test.queries}
    assert len(test.documents) == 40
    for query, grades in (dev.qrels | test.qrels).items():
        text = dict(zip(dev.query_ids + test.query_ids, dev.queries + test.queries, strict=True))
        assert list(grades) == [f"page{text[query].split()[-1]}.md"]


@pytest.mark.parametrize("answer", ["page99.md", "Words that stand in no page at all."])
def test_an_answer_that_is_not_in_the_corpus_is_refused(tmp_path, answer):
    work = DivideStage(path=asked(tmp_path, 20, lambda _: answer), corpus=corpus(tmp_path))
    with pytest.raises(UserError, match=r"queries.jsonl: 'what is 0' is answered by what is no"):
        divide(work, tmp_path / "human")
    assert not (tmp_path / "human").exists()


def test_few_queries_are_refused_or_all_of_them_are_measured(tmp_path):
    few = {"path": asked(tmp_path, 5), "corpus": corpus(tmp_path)}
    with pytest.raises(UserError, match="fewer than 16 queries; got 5"):
        divide(DivideStage(**few), tmp_path / "human")
    folder = divide(DivideStage(**few, chooses=False), tmp_path / "human")
    assert len(load_retrieval_task(folder, "test").queries) == 5
    assert not (folder / "qrels/dev.tsv").exists()


def test_a_folder_with_its_own_dev_keeps_it_and_documents_are_capped(tmp_path):
    queries = [(f"q{n}", f"what is {n}") for n in range(20)]
    judged = {
        "dev": {f"q{n}": {f"page{n}.md": 1} for n in range(4)},
        "test": {f"q{n}": {f"page{n}.md": 1} for n in range(4, 20)},
    }
    write_beir(tmp_path / "beir", documents(), queries, judged)
    work = DivideStage(path=str(tmp_path / "beir"), num_documents=25)
    folder = divide(work, tmp_path / "human")
    for split, grades in judged.items():
        found = load_retrieval_task(folder, split)
        assert found.qrels == grades
        assert len(found.documents) == 25


def test_rows_that_people_ask_again_do_not_train(tmp_path):
    queries = asked(tmp_path, 40, lambda n: f"text {n}")
    rows = [{"query": f"query {n}", "positive": f"text {n}"} for n in range(200)]
    rows.append({"query": "WHAT is  3", "positive": "another text"})
    work = HoldOutStage(path=write(tmp_path / "rows.jsonl", rows), apart=queries)
    folder = hold_out_rows(work, tmp_path / "data")
    human = divide(DivideStage(path=queries), tmp_path / "human")
    test = load_retrieval_task(human, "test")
    answers = {t for t in test.documents for q in test.qrels.values() if t in _answers(test, q)}
    trained = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert not {row["query"].lower() for row in trained} & {"what is  3"}
    assert not {row["positive"][0] for row in trained} & answers
    assert len(answers) == 20
    report = json.loads((folder / "report.json").read_text())
    assert report["rows_apart"] == {"same_query": 1, "same_answer": 20}


def _answers(task, grades):
    texts = dict(zip(task.document_ids, task.documents, strict=True))
    return {texts[name] for name in grades}
