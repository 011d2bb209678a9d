"""A judgement as it is run: killed, at an address that is paid, with models of a folder, in a pipeline."""

import json
import signal

import pytest
from completions_stub import CompletionsStub, listed
from forks import fork, signal_on_call
from judge_toys import NUMBER, StubJudge, config, document, oracle, rows_of, write_mined

from embedtrain.errors import UserError
from embedtrain.mining.judgement import asking
from embedtrain.mining.settings import MiningConfig
from embedtrain.workflows.judge import judge, judge_mined
from embedtrain.workflows.mine import mine
from embedtrain.workflows.pipeline import Pipeline, run_pipeline


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
        if passage == document("maybe", 7):
            return listed(path, {"Well": -0.01})
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
        assert report["spent"]["small"]["malformed"] == 1
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


@pytest.mark.parametrize("writer", ["toy", "other"])
def test_a_judge_that_wrote_the_queries_is_told(bert, tmp_path, capsys, writer):
    """The name in the report of a synthesis goes through the mining to the judge."""
    synthetic = write_mined(tmp_path / "synthetic", 8, rejected=False)
    (synthetic / "synth.yaml").write_text("")
    (synthetic / "report.json").write_text(json.dumps({"writer": writer}))
    settings = MiningConfig(num_negatives=1)
    mine(str(bert), str(synthetic / "train.jsonl"), tmp_path / "mined", settings)
    answers = {"Yes": -0.1, "No": -3.0}
    with CompletionsStub(lambda path, body: listed(path, answers)) as stub:
        asked = config(judge={"model": stub.url, "kind": "yes_no"}, num_random=0)
        folder = judge(tmp_path / "mined", tmp_path / "out", asked, cache=tmp_path / "cache")
    is_own = writer == "toy"
    report = json.loads(folder.report.read_text())
    assert report["judges_of_own_queries"] == (["toy"] if is_own else [])
    told = "".join(capsys.readouterr())
    assert ("toy wrote the queries" in told) == is_own
