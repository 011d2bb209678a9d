"""A language model as a writer at an address: what is asked again, what is given up, and which words a server knows."""

import json
import time

import pytest
from completions_stub import CompletionsStub, said
from writer_toys import chunks, number_of, opened, write_json, write_text

from embedtrain.encoding.language import endpoint, posting
from embedtrain.errors import UserError

SECRET = "sesame-open-1234"
pytestmark = pytest.mark.usefixtures("no_waits")


@pytest.mark.parametrize("bad", ["", "Sorry, no.", '{"answers": 1}', "<html></html>"])
def test_an_answer_that_cannot_be_used_is_asked_for_twice_more_and_never_again(tmp_path, bad):
    def reply(path, body):
        return said(bad) if number_of(body) == "1" else write_json(path, body)

    with CompletionsStub(reply) as stub:
        for _ in range(2):
            writer = opened(stub, tmp_path, format="json", concurrency=1)
            found = list(writer.write(chunks(2)))
    assert len(stub.asked) == 1 + 3
    own = [body for _, body in stub.asked if number_of(body) == "1"]
    assert [body["temperature"] for body in own] == [0.0, 0.3, 0.3]
    assert [one.finish for one in found] == ["stop", "stop", "failed", "failed"]
    assert sum(writer.report()["unusable_answers"].values()) == 3


def test_a_slot_without_an_answer_is_empty(tmp_path):
    with CompletionsStub(
        lambda path, body: said('{"queries": [{"slot": 2, "text": "b c"}]}')
    ) as stub:
        found = list(opened(stub, tmp_path, format="json").write(chunks(1)))
    assert [(one.query, one.finish) for one in found] == [("", "empty"), ("b c", "stop")]


@pytest.mark.parametrize(
    "broken", [b"<html>Bad gateway</html>", b"[1]", b'{"error": 1}', "cut", "hang", 500]
)
def test_what_passes_is_asked_again(tmp_path, broken):
    with CompletionsStub(write_text, hang_seconds=0.4) as stub:
        stub.faults += [broken, broken]
        writer = opened(stub, tmp_path, concurrency=1, per_chunk=1, timeout=0.2)
        (found,) = writer.write(chunks(1))
    assert found.finish == "stop"
    content = (tmp_path / "requests" / "part-00000.jsonl").read_text()
    lines = [json.loads(line) for line in content.splitlines()]
    assert [line["tries"] for line in lines if "text" in line] == [3]
    assert writer.report()["unknown_requests"] == (0 if broken == 500 else 2)


def test_a_socket_that_never_answers_ends_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "TRIES", 2)
    began = time.monotonic()
    with CompletionsStub(
        write_text, lambda name, body: "hang" if number_of(body) == "1" else None, hang_seconds=1
    ) as stub:
        writer = opened(stub, tmp_path, per_chunk=1, timeout=0.15)
        found = list(writer.write(chunks(3)))
        assert [one.finish for one in found] == ["stop", "failed", "stop"]
        assert time.monotonic() - began < 5
        assert writer.report()["queries"] == {"failed": 1, "stop": 2}
        assert "ReadTimeout" in next(iter(writer.chat.failures.values())).reason


def test_too_many_requests_wait_as_long_as_the_server_says_and_halve_the_pace(tmp_path):
    with CompletionsStub(write_text) as stub:
        stub.faults += [429]
        stub.wait = "0.6"
        writer = opened(stub, tmp_path, concurrency=4)
        found = list(writer.write(chunks(6)))
    assert {one.finish for one in found} == {"stop"}
    assert len(stub.asked) == 12 + 1
    after = [when - stub.times[0] for when in stub.times]
    assert not [when for when in after if 0.3 < when < 0.55]  # before, some are on their way
    assert sum(when >= 0.55 for when in after) >= 6
    assert writer.chat.endpoint.throttle.allowed == 2


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
def test_three_refusals_in_a_row_end_the_work_and_keep_what_is_there(tmp_path, code, monkeypatch):
    monkeypatch.setenv(posting.KEY, SECRET)
    with CompletionsStub(write_text) as stub:
        stub.faults += [None, None, code, code, None, code, code, code]
        stub.said = f"bad key {SECRET}".encode()
        writer = opened(stub, tmp_path, concurrency=1)
        with pytest.raises(UserError, match=f"HTTP {code}: bad key \\*\\*\\*") as caught:
            list(writer.write(chunks(9)))
        assert len(stub.asked) == 8
        stub.faults.clear()
        assert len(list(opened(stub, tmp_path, concurrency=1).write(chunks(9)))) == 18
        assert len(stub.asked) == 8 + 18 - 3
    assert set(stub.keys) == {f"Bearer {SECRET}"}
    assert SECRET not in str(caught.value)
    assert all(
        SECRET.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()
    )


def test_a_field_that_a_server_does_not_know_is_dropped_once(tmp_path):
    with CompletionsStub(write_json) as stub:
        stub.faults += [400]
        stub.said = b'{"error": "Unknown field: response_format"}'
        writer = opened(stub, tmp_path, format="json", concurrency=1)
        found = list(writer.write(chunks(3)))
    assert [("response_format" in body) for _, body in stub.asked] == [True, False, False, False]
    assert {one.finish for one in found} == {"stop"}


def test_newer_servers_get_the_name_of_a_limit_that_they_know(tmp_path):
    with CompletionsStub(write_text) as stub:
        stub.faults += [400]
        stub.said = b"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        list(opened(stub, tmp_path, concurrency=1).write(chunks(1)))
    assert "max_tokens" in stub.asked[0][1]
    assert stub.asked[1][1]["max_completion_tokens"] == 64
    assert "max_tokens" not in stub.asked[1][1]
