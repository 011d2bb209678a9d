"""Requests that bring no answer: asked again by the next run, told, counted, and held to the budget."""

import json
import time

import pytest
from completions_stub import CompletionsStub
from writer_toys import chunks, draw, number_of, opened, write_text

from embedtrain.encoding.language import endpoint
from embedtrain.errors import UserError

pytestmark = pytest.mark.usefixtures("no_waits")


def failing(share, code=500):
    """A fault of some requests, drawn by their keys: as often as they are sent."""
    return lambda name, body: code if draw(name.partition(":")[0]) < share else None


def test_requests_that_failed_for_a_passing_reason_are_asked_again_by_the_next_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(endpoint, "TRIES", 2)
    monkeypatch.setattr(endpoint, "FAILURES", 99)
    with CompletionsStub(write_text, failing(0.4)) as stub:
        writer = opened(stub, tmp_path)
        found = list(writer.write(chunks(15)))
        report = writer.report()
        failed = [one for one in found if one.finish == "failed"]
        assert report["failed_requests"] == len(failed) == report["queries"]["failed"] > 5
        assert report["failed_share"] == pytest.approx(len(failed) / 30, abs=1e-4)
        told = f"{len(failed)} of 30 requests brought no answer (HTTP 500: no: wait)"
        assert report["ended"] == told
        assert writer.notes() == [f"{told}: their queries are missing."]
        stub.fault, before = lambda name, body: None, len(stub.asked)
        again = opened(stub, tmp_path)
        assert {one.finish for one in again.write(chunks(15))} == {"stop"}
        assert len(stub.asked) - before == len(failed)
        assert (again.report()["ended"], again.notes()) == ("", [])


def test_requests_that_are_refused_are_told_but_not_asked_for_ever(tmp_path):
    with CompletionsStub(
        write_text, lambda name, body: 400 if number_of(body) == "1" else None
    ) as stub:
        writer = opened(stub, tmp_path, per_chunk=1, concurrency=1)
        list(writer.write(chunks(3)))
    assert writer.report()["ended"] == ""
    assert "1 of 3 requests brought no answer (HTTP 400" in writer.notes()[0]


def test_a_dead_server_ends_the_work_after_some_failures_in_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "TRIES", 2)
    with CompletionsStub(write_text) as stub:
        stub.faults += [None] * 3 + [503] * 500
        writer = opened(stub, tmp_path, concurrency=1)
        with pytest.raises(UserError, match=r"HTTP 503.*the same command again"):
            list(writer.write(chunks(40)))
        assert len(stub.asked) == 3 + 2 * endpoint.FAILURES
        stub.faults.clear()
        assert len(list(opened(stub, tmp_path).write(chunks(40)))) == 80


def test_a_budget_holds_for_requests_that_are_sent_again(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "TRIES", 20)  # more than the budget can pay for: it ends first
    with CompletionsStub(write_text, lambda name, body: b"cut") as stub:
        writer = opened(stub, tmp_path, budget_tokens=4000, examples=0)
        assert list(writer.write(chunks(40))) == []
    report = writer.report()
    assert report["unknown_tokens_at_most"] <= 4000
    assert report["ended"] == "the budget of 4,000 tokens is used up"
    assert report["failed_requests"] == 0


def test_a_budget_of_seconds_counts_the_wait_before_another_try(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 60.0)
    began = time.monotonic()
    with CompletionsStub(write_text, lambda name, body: 503) as stub:
        writer = opened(stub, tmp_path, budget_seconds=20)
        assert list(writer.write(chunks(9))) == []
    assert time.monotonic() - began < 15
    assert writer.report()["ended"] == "the budget of 20 seconds is used up"


@pytest.mark.parametrize("usage", [None, []])
def test_an_answer_whose_price_nobody_tells_counts_at_its_most(tmp_path, usage):
    def reply(path, body):
        return write_text(path, body) | {"usage": usage}

    with CompletionsStub(reply) as stub:
        writer = opened(stub, tmp_path, per_chunk=1)
        assert len(list(writer.write(chunks(3)))) == 3
    assert writer.report()["unknown_requests"] == 3
    assert writer.report()["unknown_tokens_at_most"] > 3 * 64


def test_what_queries_depend_on_is_the_model_and_the_user_s_own(tmp_path):
    like = tmp_path / "like.jsonl"
    like.write_text('{"query": "one of mine"}\n')
    with CompletionsStub(write_text) as one, CompletionsStub(write_text) as other:
        found = [
            opened(stub, tmp_path, like=path).stands_for()
            for stub, path in ((one, None), (other, None), (one, like))
        ]
        like.write_text('{"query": "another of mine"}\n')
        found.append(opened(one, tmp_path, like=like).stands_for())
        again = opened(one, tmp_path, like=like).stands_for()
    assert len({json.dumps(one) for one in found}) == 4
    assert again == found[-1]


def test_people_who_could_not_be_drafted_end_the_work_and_a_forecast_knows_those_who_were(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(endpoint, "TRIES", 1)
    with CompletionsStub(write_text, lambda name, body: 500) as stub:
        writer = opened(stub, tmp_path, personas="draft")
        assert list(writer.write(chunks(4))) == []
        assert writer.report()["ended"] == "nobody was drafted (HTTP 500: no: wait)"
        assert len(stub.asked) == 1
        stub.fault = None
        assert len(list(opened(stub, tmp_path, personas="draft").write(chunks(4)))) == 8
        asked = len(stub.asked)
        assert opened(stub, tmp_path, personas="draft").forecast(chunks(4))["kept"] == 8
        assert len(stub.asked) == asked
