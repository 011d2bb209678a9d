"""Rows become a BEIR folder whose splits share nothing."""

import json

import pytest
from pydantic import ValidationError

from embedtrain.data.linked_texts import same_words
from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.errors import UserError
from embedtrain.workflows.divide import DivideStage, divide
from embedtrain.workflows.hold_out import HoldOutStage, hold_out_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("rows")
    rows = [
        {"query": f"query {n}", "positive": f"text {n // 2}", "negatives": [f"other {n}"]}
        for n in range(120)
    ]
    for n, mark in enumerate("\t\n\r\u2028"):  # an id with one would part the lines of judgments
        rows[n]["query_id"] = f"id{mark}{n}"
    rows.append({"query": "QUERY  1", "positive": "text 0"})  # query 1 again
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return hold_out_rows(HoldOutStage(path=str(place / "rows.jsonl")), place / "data")


def test_splits_share_neither_queries_nor_answers(folder):
    tasks = [load_retrieval_task(folder, split) for split in ("train", "dev", "test")]
    asked = [set(task.query_ids) for task in tasks]
    answers = [{d for found in task.qrels.values() for d in found} for task in tasks]
    for parts in (asked, answers):
        assert sum(map(len, parts)) == len(set().union(*parts))
    assert sum(map(len, asked)) == 120
    assert len(asked[1]) >= 10 <= len(asked[2])


def test_what_trains_is_what_was_not_held_out(folder):
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    task = load_retrieval_task(folder, "train")
    assert {row["query"].casefold().replace("  ", " ") for row in rows} == set(task.queries)
    assert all(row["negatives"][0].startswith("other") for row in rows if "negatives" in row)
    assert set(task.documents) >= {f"text {n}" for n in range(60)}


def test_without_queries_that_choose_there_is_no_such_split(folder, tmp_path):
    rows = folder / "train.jsonl"
    found = hold_out_rows(HoldOutStage(path=str(rows), dev=0, test=0.2), tmp_path / "data")
    assert {path.stem for path in (found / "qrels").iterdir()} == {"train", "test"}
    assert "dev" not in json.loads((found / "report.json").read_text())["queries"]


def test_too_much_held_out_is_refused():
    with pytest.raises(ValidationError, match="leave too little"):
        HoldOutStage(path="x", dev=0.45, test=0.45)


ANSWER = "Valve {0} opens when its pressure rises above {0} bar, so turn screw {0} to the left until it is shut."
REST = "Chapter {0} of the manual says how pump {0} is taken apart, cleaned with soap and put together again."


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Rows whose answers are the ends of pages, and pages that answer nothing."""
    place = tmp_path_factory.mktemp("beside")
    rows = [{"query": f"how to shut valve {n}", "positive": ANSWER.format(n)} for n in range(120)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "docs").mkdir()
    for n in range(120):
        (place / f"docs/valve{n}.md").write_text(f"# Valves\n\n{ANSWER.format(n)}")
    for n in range(30):
        (place / f"docs/pump{n}.md").write_text(f"# Pumps\n\n{REST.format(n)}")
    return place


def test_a_corpus_is_searched_without_what_repeats_an_answer(beside, tmp_path):
    stage = HoldOutStage(path=str(beside / "rows.jsonl"), corpus=str(beside / "docs"))
    found = hold_out_rows(stage, tmp_path / "data")
    task = load_retrieval_task(found, "test")
    pumps = [text for text in task.documents if text.startswith("Pumps")]
    assert len(pumps) == 30
    assert len(task.documents) == 150
    assert json.loads((found / "report.json").read_text())["documents_beside"] == 30
    lines = [json.loads(line) for line in (found / "corpus.jsonl").read_text().splitlines()]
    copies = {line["text"]: line["copies"] for line in lines if "copies" in line}
    assert copies == {ANSWER.format(n): [f"valve{n}.md"] for n in range(120)}


def test_people_may_name_a_page_that_repeats_an_answer(beside, tmp_path):
    """Their queries are answered by it, and the row of its text does not train."""
    asked = [{"query": f"valve {n} leaks", "positive": f"valve{n}.md"} for n in range(40)]
    queries = tmp_path / "asked.jsonl"
    queries.write_text("".join(json.dumps(row) + "\n" for row in asked))
    rows, docs = str(beside / "rows.jsonl"), str(beside / "docs")
    found = hold_out_rows(
        HoldOutStage(path=rows, corpus=docs, apart=str(queries)), tmp_path / "data"
    )
    report = json.loads((found / "report.json").read_text())
    assert report["rows_apart"] == {"same_query": 0, "same_answer": 20}  # of those that decide
    trained = (found / "train.jsonl").read_text()
    divided = divide(
        DivideStage(path=str(queries), corpus=str(found / "corpus.jsonl")), tmp_path / "human"
    )
    deciding = load_retrieval_task(divided, "test")
    texts = dict(zip(deciding.document_ids, deciding.documents, strict=True))
    answers = [texts[name] for grades in deciding.qrels.values() for name in grades]
    assert len(answers) == 20
    assert all(text.startswith("Valve") and text not in trained for text in answers)


def test_by_query_documents_may_answer_on_both_sides_and_queries_of_the_same_words_may_not(
    tmp_path,
):
    rows = [
        {"query": query, "positive": f"text {n % 5}"}
        for n in range(120)
        for query in (f"how to mend {n}?", f"How to mend {n}")
    ]
    place = tmp_path / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="queries"):  # five groups of one answer each, all too large
        hold_out_rows(HoldOutStage(path=str(place)), tmp_path / "whole")
    found = hold_out_rows(HoldOutStage(path=str(place), by="query"), tmp_path / "data")
    tasks = {split: load_retrieval_task(found, split) for split in ("train", "dev", "test")}
    words = {
        split: {query.casefold().strip("?") for query in task.queries}
        for split, task in tasks.items()
    }
    assert [len(found) for found in words.values()] == [96, 12, 12]
    assert len(set().union(*words.values())) == 120
    answers = {
        split: {d for found in task.qrels.values() for d in found} for split, task in tasks.items()
    }
    assert answers["test"] <= answers["train"]


def test_by_query_only_what_people_ask_is_left_out(beside, tmp_path):
    asked = [
        {"query": f"How to shut valve {n}?", "positive": ANSWER.format(n)} for n in range(20)
    ] + [{"query": f"valve {n} leaks", "positive": ANSWER.format(n)} for n in range(20, 40)]
    queries = tmp_path / "asked.jsonl"
    queries.write_text("".join(json.dumps(row) + "\n" for row in asked))
    stage = HoldOutStage(path=str(beside / "rows.jsonl"), apart=str(queries), by="query")
    found = hold_out_rows(stage, tmp_path / "data")
    apart = json.loads((found / "report.json").read_text())["rows_apart"]
    assert apart == {"same_query": 20, "same_answer": 0}


def test_rows_may_name_a_document_by_its_id(beside, tmp_path):
    rows = [
        {"query": f"how to shut valve {n}", "positive": f"valve{n}.md", "negatives": ["a pump"]}
        for n in range(120)
    ]
    place = tmp_path / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = HoldOutStage(path=str(place), corpus=str(beside / "docs"), by="query")
    found = hold_out_rows(stage, tmp_path / "data")
    task = load_retrieval_task(found, "test")
    assert task.qrels
    assert all(set(grades) == {f"valve{query.split()[-1]}.md"} for query, grades in named(task))
    trained = [json.loads(line) for line in (found / "train.jsonl").read_text().splitlines()]
    texts = {row["query"]: row["positive"] for row in trained}
    assert texts
    for query, (text,) in texts.items():
        assert text.split() == f"Valves {ANSWER.format(query.split()[-1])}".split()
    assert len(task.documents) == 151  # each valve once, thirty pumps, and the negative


def named(task):
    texts = dict(zip(task.query_ids, task.queries, strict=True))
    return [(texts[query], grades) for query, grades in task.qrels.items()]


def test_a_mistyped_id_is_refused_and_a_text_that_is_an_id_stays_a_text(beside, tmp_path):
    place, docs = tmp_path / "rows.jsonl", str(beside / "docs")
    names = [f"valve{n}.md" for n in range(119)] + ["docs/valve119.md"]
    lines = [json.dumps({"query": f"shut {one}", "positive": one}) + "\n" for one in names]
    place.write_text("".join(lines))
    with pytest.raises(UserError, match=r"is not there; got 'docs/valve119.md'"):
        hold_out_rows(HoldOutStage(path=str(place), corpus=docs), tmp_path / "data")
    texts = ["valve1.md", *(ANSWER.format(n) for n in range(2, 121))]
    lines = [json.dumps({"query": f"shut {one}", "positive": one}) + "\n" for one in texts]
    place.write_text("".join(lines))
    found = hold_out_rows(HoldOutStage(path=str(place), corpus=docs), tmp_path / "texts")
    lines = [json.loads(line) for line in (found / "corpus.jsonl").read_text().splitlines()]
    assert "valve1.md" in {line["text"] for line in lines}


@pytest.mark.parametrize("names", [True, False])
def test_short_documents_are_not_there_twice(names, tmp_path):
    """A title before them makes them longer than what stands for them among the rows."""
    docs = [
        {"id": f"d{n}", "title": f"Chair {n}", "text": f"Chair {n} is made of red oak"}
        for n in range(60)
    ]
    rows = [
        {"query": f"what is {n} made of", "positive": doc["id"] if names else doc["text"]}
        for n, doc in enumerate(docs)
    ]
    for name, lines in (("docs", docs), ("rows", rows)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    work = HoldOutStage(
        path=str(tmp_path / "rows.jsonl"), corpus=str(tmp_path / "docs.jsonl"), dev=0.2, test=0.2
    )
    found = hold_out_rows(work, tmp_path / "data")
    assert json.loads((found / "report.json").read_text())["documents_beside"] == 0


def test_a_page_of_several_answers_stands_for_each(tmp_path):
    answers = [ANSWER.format(n) for n in range(60)]
    rows = [{"query": f"valve {n}", "positive": text} for n, text in enumerate(answers)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/faq.txt").write_text("\n\n".join(answers[:3]))
    work = HoldOutStage(
        path=str(tmp_path / "rows.jsonl"), corpus=str(tmp_path / "docs"), dev=0.2, test=0.2
    )
    found = hold_out_rows(work, tmp_path / "data")
    lines = [json.loads(line) for line in (found / "corpus.jsonl").read_text().splitlines()]
    assert {line["text"] for line in lines if line.get("copies") == ["faq.txt"]} == {*answers[:3]}


def test_by_query_the_reverse_of_a_held_out_row_does_not_train(tmp_path):
    pairs = [(f"how to mend {n}", f"what mends number {n}") for n in range(100)]
    rows = [
        {"query": one, "positive": two}
        for left, right in pairs
        for one, two in ((left, right), (right, left))
    ]
    place = tmp_path / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = hold_out_rows(HoldOutStage(path=str(place), by="query"), tmp_path / "data")
    trained = [json.loads(line) for line in (found / "train.jsonl").read_text().splitlines()]
    for split in ("dev", "test"):
        held = set(load_retrieval_task(found, split).queries)
        assert held.isdisjoint(text for row in trained for text in (row["query"], *row["positive"]))


def test_queries_that_differ_in_signs_that_mean_something_are_two():
    assert same_words("How to learn C++?") == same_words("how to learn  c++")
    assert same_words("How to learn C++?") != same_words("How to learn C#?")
    assert same_words("कि") != same_words("की")


def test_a_document_that_is_there_as_a_whole_is_not_there_in_parts_as_well(tmp_path):
    (tmp_path / "docs").mkdir()
    for n in range(
        60
    ):  # chunks leave the headings out, and are too short to be found by their words
        (tmp_path / f"docs/{n}.md").write_text(f"# Chair\n\n## Wood\n\nRed oak {n}")
    rows = [{"query": f"wood of chair {n}", "positive": f"{n}.md"} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    work = HoldOutStage(
        path=str(tmp_path / "rows.jsonl"), corpus=str(tmp_path / "docs"), dev=0.2, test=0.2
    )
    found = hold_out_rows(work, tmp_path / "data")
    assert json.loads((found / "report.json").read_text())["documents_beside"] == 0
