"""A language model as a writer: what it is asked, what becomes of its answers, what it may cost."""

import json
import math
import random

import pytest
from completions_stub import CompletionsStub, said
from writer_toys import chunks, expected_json, opened, write_json, write_text

from embedtrain.encoding.language.settings import EndpointSettings
from embedtrain.errors import UserError
from embedtrain.synthesis.language_settings import LanguageConfig
from embedtrain.synthesis.language_writer import open_language_writer

pytestmark = pytest.mark.usefixtures("no_waits")


def test_candidates_come_in_the_order_of_chunks_and_slots(tmp_path):
    with CompletionsStub(write_text) as stub:
        found = list(opened(stub, tmp_path).write(chunks(5)))
    assert [one.query for one in found] == [
        f"who made pump {n} at {temperature}" for n in range(5) for temperature in (0.0, 0.8)
    ]
    assert [(one.chunk, one.slot) for one in found[:3]] == [
        ("d0.md#0", 0),
        ("d0.md#0", 1),
        ("d0.md#1", 0),
    ]
    first = found[0]
    assert (first.document, first.maker, first.finish) == ("d0.md", "toy", "stop")
    assert first.positive == chunks(1)[0].text


def test_what_a_server_writes_is_counted_as_other_work_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("embedtrain.progress.LINE_SECONDS", 0)
    monkeypatch.setattr("embedtrain.progress.LINE_RATIO", 0)
    with CompletionsStub(write_text) as stub:
        for _ in range(2):  # what is there is not asked for again
            list(opened(stub, tmp_path, per_chunk=1).write(chunks(3)))
    title, *lines = capsys.readouterr().err.splitlines()
    assert title == "toy writes (3)"
    assert ["toy writes: 1 of 3 answers (33%)" in lines[0], len(lines)] == [True, 3]


def test_the_prompt_says_what_is_wanted(tmp_path):
    with CompletionsStub(write_text) as stub:
        list(
            opened(stub, tmp_path, per_chunk=1, types={"keywords": 1}, examples=2).write(chunks(1))
        )
    ((path, body),) = stub.asked
    system, *turns = body["messages"]
    assert path == "/v1/chat/completions"
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
    assert "search box" in turns[-1]["content"]
    assert "Use 3 to 6 words." in turns[-1]["content"]
    assert "Write in English." in turns[-1]["content"]
    assert "Title: Title 0" in turns[-1]["content"]
    assert "Do not give the answer." in system["content"]
    assert body["temperature"] == 0
    assert "seed" not in body


def test_all_is_a_function_of_the_chunks_whatever_order_threads_and_kills(tmp_path):
    own = chunks(20)
    mixed = random.Random(1).sample(own, len(own))
    with CompletionsStub(write_text) as stub:
        whole = list(opened(stub, tmp_path / "a", concurrency=1).write(own))
        other = list(opened(stub, tmp_path / "b", concurrency=8).write(mixed))
        begun = opened(stub, tmp_path / "c", budget_tokens=1200)
        part = list(begun.write(own))
        before = len(stub.asked)
        rest = list(opened(stub, tmp_path / "c").write(own))
        again = list(opened(stub, tmp_path / "c").write(own))
    assert sorted(map(repr, other)) == sorted(map(repr, whole))
    assert part == [one for one in whole if one in part]
    assert 0 < len(part) < len(whole)
    assert rest == again == whole
    assert len(stub.asked) - before == len(whole) - len(part)


def test_further_documents_ask_for_their_own_queries_only(tmp_path):
    with CompletionsStub(write_text) as stub:
        list(opened(stub, tmp_path, types={"question": 1}).write(chunks(6)))
        list(opened(stub, tmp_path, types={"question": 1}).write(chunks(8)))
    assert len(stub.asked) == 16


def test_a_budget_ends_the_work_within_a_request_and_a_higher_one_goes_on(tmp_path):
    with CompletionsStub(lambda path, body: said("a query", tokens=(90, 10))) as stub:
        for budget in (1000, 2500):
            writer = opened(stub, tmp_path, concurrency=1, budget_tokens=budget, examples=0)
            found = list(writer.write(chunks(40)))
            spent = writer.report()
            assert budget - 400 < spent["prompt_tokens"] + spent["completion_tokens"] <= budget
            assert spent["ended"] == f"the budget of {budget:,} tokens is used up"
            assert len(found) == spent["answers"] == len(stub.asked)


def test_a_budget_in_money_counts_what_is_written_at_its_price(tmp_path):
    settings = EndpointSettings(served_name="toy", price=10, completion_price=100, concurrency=1)
    config = LanguageConfig(endpoint=settings, budget_money=0.05, examples=0)
    with CompletionsStub(lambda path, body: said("a query", tokens=(100, 10))) as stub:
        writer = open_language_writer(stub.url, config, tmp_path)
        list(writer.write(chunks(40)))
    report = writer.report()
    assert report["cost"] == pytest.approx(len(stub.asked) * (100 * 10 + 10 * 100) / 1e6)
    assert 0.04 < report["cost"] <= 0.05
    assert "0.05 in money" in report["ended"]


def test_a_forecast_asks_nothing(tmp_path):
    with CompletionsStub(write_text) as stub:
        writer = opened(stub, tmp_path, price=1.0)
        found = writer.forecast(chunks(4))
        assert not stub.asked
        list(writer.write(chunks(4)))
        assert writer.forecast(chunks(5))["kept"] == 8 or writer.forecast(chunks(4))["kept"] == 8
    assert (found["requests"], found["kept"], found["completion_tokens"]) == (8, 0, 256)
    assert found["cost"] == pytest.approx((found["prompt_tokens"] + 256) / 1e6, abs=1e-6)


def test_json_brings_all_queries_of_a_chunk_by_their_slots(tmp_path):
    with CompletionsStub(write_json) as stub:
        found = list(opened(stub, tmp_path, format="json").write(chunks(3)))
    assert [one.query for one in found] == [
        query for chunk in chunks(3) for query in expected_json(chunk)
    ]
    assert len(stub.asked) == 3
    schema = stub.asked[0][1]["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["queries"]
    assert "Slot 2:" in stub.asked[0][1]["messages"][-1]["content"]


def test_a_text_that_is_too_long_gets_fewer_examples_then_fewer_sentences(tmp_path):
    (one,) = chunks(1)
    long = one.__class__(**{**one.__dict__, "text": "It is a short sentence of the text. " * 100})
    with CompletionsStub(lambda path, body: said("a b")) as stub:
        for context in (4000, 1500, 700):
            list(opened(stub, tmp_path, context=context, per_chunk=1).write([long]))
    turns = [[turn["content"] for turn in body["messages"]] for _, body in stub.asked]
    assert [len(own) for own in turns] == [8, 4, 2]
    assert all("Do not give the answer." in own[0] for own in turns)
    for context, own in zip((4000, 1500, 700), turns, strict=True):
        assert sum(math.ceil(len(turn) / 3.6) for turn in own) + 64 <= context
    text = turns[2][-1].partition("Passage: ")[2].partition("\n\n")[0]
    assert text.endswith("text.")
    assert len(text) < len(long.text)


def test_a_context_without_room_is_a_line(tmp_path):
    with (
        CompletionsStub(write_text) as stub,
        pytest.raises(UserError, match="leaves no room for a text"),
    ):
        list(opened(stub, tmp_path, context=150).write(chunks(1)))


def write_like(folder, *rows):
    path = folder / "like.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_own_queries_with_texts_are_turns_and_without_them_a_list(tmp_path):
    paired = [{"query": f"own query {n}", "positive": f"own text {n}"} for n in range(5)]
    with CompletionsStub(write_text) as stub:
        for number, rows in enumerate((paired, [{"text": f"own  query {n}"} for n in range(5)])):
            like = write_like(tmp_path, *rows)
            writer = opened(stub, tmp_path / str(number), like=like, per_chunk=1)
            found = list(writer.write(chunks(2)))
            assert {one.type for one in found} == {"user"}
            assert writer.examples == tuple(f"own query {n}" for n in range(5))
    with_texts, without = stub.asked[0][1]["messages"], stub.asked[2][1]["messages"]
    assert [turn["role"] for turn in with_texts] == ["system", *["user", "assistant"] * 3, "user"]
    assert with_texts[1]["content"].startswith("Passage: own text")
    assert with_texts[2]["content"].startswith("own query")
    assert len(without) == 2
    assert without[0]["content"].count("own query") == 3
    assert "Use 3 to 3 words" in without[1]["content"]


@pytest.mark.parametrize(
    ("rows", "mistake"),
    [
        ([], "holds no query"),
        ([{"title": "x"}], "jsonl:1 has no query"),
        ([{"query": "x", "positive": 3}], "jsonl:1"),
    ],
)
def test_own_queries_that_cannot_be_read_are_named(tmp_path, rows, mistake):
    with CompletionsStub(write_text) as stub, pytest.raises(UserError, match=mistake):
        opened(stub, tmp_path, like=write_like(tmp_path, *rows))


def test_people_are_thought_of_once_and_stand_in_the_prompt(tmp_path):
    def reply(path, body):
        drafts = "List 12" in body["messages"][-1]["content"]
        return said("1. a nurse on night duty\n- a pilot\n") if drafts else write_text(path, body)

    with CompletionsStub(reply) as stub:
        for _ in range(2):
            list(opened(stub, tmp_path, personas="draft").write(chunks(6)))
    assert len(stub.asked) == 1 + 12
    systems = [body["messages"][0]["content"] for _, body in stub.asked[1:]]
    assert all(
        "this person: a nurse on night duty." in one or "this person: a pilot." in one
        for one in systems
    )


def test_chatter_of_a_thinking_model_is_taken_off_and_it_gets_more_tokens(tmp_path):
    with CompletionsStub(lambda path, body: said("<think>hm\nhm</think>\n\nwho made it?")) as stub:
        (found,) = opened(stub, tmp_path, per_chunk=1, thinks=True).write(chunks(1))
    assert found.query == "who made it?"
    assert stub.asked[0][1]["max_tokens"] == 512


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ({"budget_money": 1.0}, "needs endpoint.price"),
        ({"types": {"question": 0}}, "must have a share above 0"),
        ({"words": {"question": (9, 3)}}, "must not have more at least than at most"),
        ({"words": {"question": (3, 9)}}, "must name how long these are"),
        ({"types": {"poem": 1}}, "poem"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keys, mistake):
    with pytest.raises(ValueError, match=mistake):
        LanguageConfig(**keys)
