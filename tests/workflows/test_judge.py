"""Judging mined rows as a whole: what changes, what people said stays, and a kill costs nothing twice."""

import json
import signal

import pytest
from completions_stub import CompletionsStub, listed
from forks import fork, signal_on_call
from judge_toys import StubJudge, document, oracle, write_mined

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.errors import UserError
from embedtrain.mining.judgement import asking
from embedtrain.mining.judgement.settings import JudgeConfig
from embedtrain.workflows.judge import judge, judge_mined
from embedtrain.workflows.pipeline import Pipeline, run_pipeline

NUMBER = 40


def config(**settings):
    return JudgeConfig.model_validate({"judge": {"model": "stub"}, **settings})


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def mined(tmp_path):
    return write_mined(tmp_path / "mined", NUMBER)


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
    # The guard of the mining counts where the judge has none.
    mined_by = {"config": {"guard": {"path": str(guard), "split": "test"}}}
    (mined / "manifest.json").write_text(json.dumps(mined_by))
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


def test_a_killed_judgement_goes_on_and_ends_with_the_same_bytes(mined, tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "PAIRS_PER_BLOCK", 16)
    settings = config(larger={"model": "other"}, tokens=6200)

    def work(output, cache):
        judges = [StubJudge(oracle, "small"), StubJudge(oracle, "large")]
        judge_mined(mined, judges, tmp_path / output, settings, cache=tmp_path / cache)
        return judges

    whole = work("whole", "cache1")
    for at in (3, 9, 5):

        def killed(at=at):
            signal_on_call(StubJudge, "logits", at)
            work("out", "cache2")

        assert fork(killed).returncode == -signal.SIGKILL
        with (tmp_path / "out" / "parts" / "small.jsonl").open("a") as file:
            file.write('{"scores": {"ha')
    again = work("out", "cache2")
    for name in ("train.jsonl", "judged.jsonl", "report.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert 0 < len(again[0].asked) < len(whole[0].asked)
    # Done is done; other settings are another judgement, whose answers are known.
    assert [len(one.asked) for one in work("out", "cache2")] == [0, 0]
    with pytest.raises(UserError, match="was judged with other settings"):
        judge_mined(
            mined,
            [StubJudge(oracle, "small")],
            tmp_path / "out",
            config(),
            cache=tmp_path / "cache2",
        )


def test_an_address_is_asked_with_a_bill_and_a_ceiling(mined, tmp_path):
    def reply(path, body):
        text = body["messages"][0]["content"]
        query, passage = (line.split(": ")[1] for line in text.splitlines()[1:3])
        yes = oracle(query, passage) > 0
        return listed(path, {"Yes": -0.01 if yes else -6.0, "No": -6.0 if yes else -0.01})

    with CompletionsStub(reply) as stub:
        language = {"endpoint": {"price": 1000.0, "concurrency": 4}}
        asked = {"model": stub.url, "kind": "yes_no", "language": language}
        # 11 tokens a request at 1,000 a million: 300 requests cost 3.3.
        settings = config(judge=asked, money=3.3, num_random=40)
        folder = judge(mined, tmp_path / "out", settings, cache=tmp_path / "cache")
        report = json.loads(folder.report.read_text())
        assert (
            3.2 < report["spent"]["together"]["cost"] <= 3.3 + 1e-9 or report["num_not_paid"] == 0
        )
        assert report["spent"]["small"]["requests"] == len(stub.asked)
        assert report["spent"]["small"]["tokens"] == 11 * len(stub.asked)
        assert "kappa 1.00" in report["gate"]
        known = len(stub.asked)
        larger = settings.model_copy(update={"money": None})
        judge(mined, tmp_path / "again", larger, cache=tmp_path / "cache")
        texts = [body["messages"][0]["content"] for _, body in stub.asked]
        assert len(texts) == len(set(texts)) >= known, "no pair is paid for twice"


def test_a_cross_encoder_is_a_judge_and_an_encoder_is_none(mined, cross_encoder, bert, tmp_path):
    folder = judge(mined, tmp_path / "out", config(judge={"model": str(cross_encoder)}))
    assert len(rows_of(folder.judged)) == 5 * NUMBER
    with pytest.raises(UserError, match="gives no log-odds"):
        judge(mined, tmp_path / "no", config(judge={"model": str(bert)}))


def test_a_pipeline_mines_and_judges(bert, beir, cross_encoder, tmp_path):
    mining = {
        "num_negatives": 2,
        "depth": 8,
        "num_rejected": 4,
        "rule": {"kind": "margin", "margin": 0.001},
    }
    stages = [
        {"name": "mined", "mine": {"model": str(bert), "data": str(beir), "split": "test", "settings": mining}},
        {"name": "judged", "judge": {"mined": "stage:mined", "settings": {"judge": {"model": str(cross_encoder)}}}},
    ]  # fmt: skip
    output = run_pipeline(
        Pipeline.model_validate({"description": "A toy.", "stages": stages}), tmp_path / "out"
    )
    before, after = (rows_of(output / name / "train.jsonl") for name in ("mined", "judged"))
    assert [row["query_id"] for row in before] == [row["query_id"] for row in after]
    judged = rows_of(output / "judged" / "judged.jsonl")
    assert {row["role"] for row in judged} >= {"rejected", "positive"}
    assert (
        json.loads((output / "judged" / "report.json").read_text())["agreement"]["kappa"]
        is not None
    )


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
