"""Judging mined rows as a whole: what changes, what does not, and what people said stays."""

import json

import pytest
from judge_toys import NUMBER, StubJudge, config, document, oracle, rows_of, write_mined

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.errors import UserError
from embedtrain.workflows.judge import judge_mined


@pytest.fixture
def run(mined, tmp_path):
    """Judge the mined rows with stubs, each time in a folder and with a cache of its own."""

    def judged(*says, folder=mined, **settings):
        judges = [one if isinstance(one, StubJudge) else StubJudge(one) for one in says]
        number = len(list(tmp_path.glob("out*")))
        found = judge_mined(
            folder,
            judges,
            tmp_path / f"out{number}",
            config(**settings),
            cache=tmp_path / f"cache{number}",
        )
        return found, json.loads(found.report.read_text())

    return judged


def test_false_negatives_become_positives_and_hard_ones_come_back(mined, run):
    folder, report = run(oracle)
    for number, row in enumerate(rows_of(folder.training)):
        assert row["positives"] == [document("positive", number), document("hidden", number)]
        assert row["positive_sources"] == ["judged", "judge"]
        assert row["negatives"] == [document("hard", number), document("close", number)]
        assert row["negative_ids"] == [f"hard{number}", f"close{number}"]
        assert row["not_negatives"] == [document("maybe", number)]
        assert row["scores"] == [1.0, 1.02, 0.97, 0.9]
    examples = list(open_source(SourceConfig(path=str(folder.training))).examples())
    assert len(examples) == NUMBER
    assert examples[0].not_negatives == (document("maybe", 0),)
    assert report["agreement"]["kappa"] == 1
    assert report["actions"] == {
        "negative: keep": 40, "positive: keep": 40, "rejected: drop": 40,
        "rejected: regain": 40, "rejected: relabel": 40,
    }  # fmt: skip
    judged = {(row["query_id"], row["document_id"]): row for row in rows_of(folder.judged)}
    assert judged["q3", "hidden3"]["action"] == "relabel"
    assert judged["q3", "hidden3"]["p_small"] > 0.99
    assert report["spent"]["together"]["tokens"] == 10 * report["spent"]["small"]["pairs"]
    assert not folder.parts.exists()


def test_grades_are_scores_of_rows_and_judgments_to_evaluate_by(run):
    folder, _ = run(oracle, grades=True)
    row = rows_of(folder.training)[3]
    assert row["positive_ids"] == ["positive3", "hidden3"]
    assert row["negative_ids"] == ["maybe3", "hard3"]
    assert row["scores"] == [2, 2, 1, 0]
    assert "not_negatives" not in row
    (example, *_) = open_source(SourceConfig(path=str(folder.training))).examples()
    assert example.scores == (2.0, 2.0, 1.0, 0.0)
    lines = folder.grades.read_text().splitlines()
    assert lines[0] == "query-id\tcorpus-id\tscore"
    found = {tuple(line.split("\t")[1:]) for line in lines if line.startswith("q3\t")}
    own = {"positive": 2, "hidden": 2, "maybe": 1, "hard": 0, "close": 0}
    assert found == {(f"{kind}3", str(grade)) for kind, grade in own.items()}
    plain, _ = run(oracle)
    assert not plain.grades.exists()


def test_judges_that_always_say_the_same_are_not_believed(mined, run):
    for verdict, action in ((6.0, "rejected: drop"), (-6.0, "rejected: keep")):
        folder, report = run(lambda *_, verdict=verdict: verdict)
        assert report["agreement"]["kappa"] == 0
        assert "may only drop" in report["gate"]
        # One that says yes to random pairs has its threshold raised until it says it to none.
        assert report["calibration"]["small"]["random_relevant"] == 0
        if verdict < 0:
            assert report["actions"][action] == 3 * NUMBER
            assert folder.training.read_bytes() == (mined / "train.jsonl").read_bytes()
        else:
            assert all(len(row["positives"]) == 1 for row in rows_of(folder.training))


def test_what_people_said_is_never_changed(run, tmp_path):
    """Labels that a judge would contradict, and positives of people that it calls wrong."""
    labels = tmp_path / "labels.tsv"
    labels.write_text("query-id\tcorpus-id\tscore\nq0\thidden0\t0\nq1\thard1\t1\nq2\tclose2\t1\n")

    def contrary(query, text):
        return (
            -6.0
            if text.startswith("positive") and text.endswith((" 4", " 5"))
            else oracle(query, text)
        )

    small = StubJudge(contrary)
    folder, report = run(small, labels=str(labels))
    rows = rows_of(folder.training)
    assert document("hidden", 0) not in rows[0]["positives"]
    assert document("hard", 1) not in rows[1]["negatives"]
    assert rows[2]["negatives"][-1] == document("close", 2)
    for number in (4, 5):
        assert rows[number]["positives"][0] == document("positive", number)
    assert report["withheld"]["people"] == 2
    named = {(row["query_id"], row["document_id"]) for row in rows_of(folder.judged)}
    assert not named & {("q0", "hidden0"), ("q1", "hard1"), ("q2", "close2")}
    assert ("query 0", document("hidden", 0)) in small.asked, "to measure the judge by it"


def test_written_positives_may_go_and_their_rows_with_them(run):
    def strict(query, text):
        return (
            -6.0
            if text.startswith(("positive", "hidden")) and text.endswith((" 4", " 5"))
            else oracle(query, text)
        )

    def mild(query, text):
        return -6.0 if text == document("positive", 4) else oracle(query, text)

    folder, report = run(strict, written=True)
    assert [row["query_id"] for row in rows_of(folder.training)] == [
        f"q{number}" for number in range(NUMBER) if number not in (4, 5)
    ]
    assert report["num_dropped_rows"] == report["actions"]["positive: drop_row"] == 2
    row = rows_of(run(mild, written=True)[0].training)[4]
    assert row["positives"] == [document("hidden", 4)]
    assert row["not_negatives"] == [document("positive", 4), document("maybe", 4)]
    assert len(row["scores"]) == len(row["positives"]) + len(row["negatives"])


def test_no_budget_changes_no_byte(mined, run):
    small = StubJudge(oracle)
    folder, report = run(small, tokens=0)
    assert folder.training.read_bytes() == (mined / "train.jsonl").read_bytes()
    assert small.asked == []
    assert folder.judged.read_bytes() == b""
    assert report["num_not_paid"] == sum(report["num_pairs"].values())


def test_a_budget_is_kept_and_buys_the_judge_s_measure_first(run):
    whole = run(oracle)[1]["spent"]["together"]["tokens"]
    small = StubJudge(oracle)
    folder, report = run(small, tokens=whole - 500)
    assert whole - 600 < report["spent"]["together"]["tokens"] <= whole - 500
    assert report["num_not_paid"] == 50
    assert report["agreement"]["kappa"] == 1
    asked = [row for row in rows_of(folder.judged) if row["role"] == "rejected"]
    assert len(asked) == 3 * NUMBER - 10, "close negatives came behind all that was kept out"


def test_the_larger_judge_is_asked_in_the_band_only_and_decides(run):
    def unsure(query, text):
        found = oracle(query, text)
        return 1.0 if found > 0 and not text.startswith("positive") else found

    small, large = (
        StubJudge(unsure, "small"),
        StubJudge(lambda q, t: 9 if t.startswith("maybe") else oracle(q, t), "large"),
    )
    folder, report = run(small, large, larger={"model": "other"}, num_random=20)
    expected = {
        (f"query {n}", document(kind, n)) for n in range(NUMBER) for kind in ("hidden", "maybe")
    }
    random = set(small.asked) - {
        (f"query {n}", document(kind, n))
        for n in range(NUMBER)
        for kind in ("positive", "close", "hidden", "maybe", "hard")
    }
    assert set(large.asked) == expected | random
    assert len(large.asked) == len(set(large.asked))
    assert report["num_asked_again"] == 2 * NUMBER
    row = rows_of(folder.training)[7]
    assert row["positive_ids"] == ["positive7", "maybe7", "hidden7"]


def test_a_document_that_is_for_measuring_never_becomes_a_positive(mined, beir_of, run):
    guard = beir_of([document("hidden", 3)])
    folder, report = run(oracle, guard={"path": str(guard), "split": "test"})
    rows = rows_of(folder.training)
    assert rows[3]["positives"] == [document("positive", 3)]
    assert set(rows[3]["not_negatives"]) == {document("hidden", 3), document("maybe", 3)}
    assert rows[4]["positives"] == [document("positive", 4), document("hidden", 4)]
    assert report["withheld"] == {"guard": 1}
    # Those of the mining count where the judge has none.
    own = {"path": str(guard), "split": "test"}
    for mined_by in ({"guard": own}, {"guards": [own]}):
        (mined / "manifest.json").write_text(json.dumps({"config": mined_by}))
        assert run(oracle)[1]["withheld"] == {"guard": 1}


@pytest.fixture
def beir_of(tmp_path):
    def write(documents):
        folder = tmp_path / "guard"
        (folder / "qrels").mkdir(parents=True)
        corpus = [{"_id": f"g{n}", "text": text} for n, text in enumerate(documents)]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
        (folder / "queries.jsonl").write_text(json.dumps({"_id": "t", "text": "a test"}) + "\n")
        judged = "".join(f"t\tg{n}\t1\n" for n in range(len(documents)))
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
        return folder

    return write


def test_boilerplate_that_a_judge_likes_is_listed_and_not_relabelled(run, tmp_path):
    folder = write_mined(tmp_path / "same", NUMBER, shared="terms and conditions")
    folder, report = run(
        lambda query, text: 6.0 if text.startswith("terms") else oracle(query, text), folder=folder
    )
    assert report["hubs"] == ["shared"]
    assert report["withheld"] == {"hub": NUMBER}
    assert all(len(row["positives"]) == 1 for row in rows_of(folder.training))


def test_damaged_rows_and_a_folder_of_something_else_are_told(mined, tmp_path, run):
    with pytest.raises(UserError, match=r"holds no train\.jsonl"):
        run(oracle, folder=tmp_path)
    rows = rows_of(mined / "train.jsonl")
    rows[2]["scores"] = rows[2]["scores"][1:]
    (mined / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"train\.jsonl:3 must have positives"):
        run(oracle)
    rows[2]["scores"] = "none"
    (mined / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"train\.jsonl:3 scores input should be a valid list"):
        run(oracle)
