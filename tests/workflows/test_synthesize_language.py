"""A synthesis with a language model behind an address: what failed, what it may cost, what begins anew."""

import json

import pytest
from completions_stub import CompletionsStub, said
from document_toys import write_folder
from typer.testing import CliRunner
from writer_toys import draw

from embedtrain.cli.main import app
from embedtrain.encoding.language import endpoint
from embedtrain.errors import NothingLeftError
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.workflows.synthesize import synthesize


@pytest.fixture
def docs(tmp_path):
    return write_folder(tmp_path / "docs", 80)


def opened(**keys):
    settings = {"round_trip": {"reader": None}, "chunks": {"length": 60}, "cosine": 1}
    language = {"per_chunk": 1, "endpoint": {"served_name": "toy", "concurrency": 4}}
    return SynthesisConfig.model_validate(settings | {"language": language | keys})


def speak(path, body):
    """Ask for three words of the text, so that no two queries are one."""
    words = body["messages"][-1]["content"].partition("Passage: ")[2].split()
    return said(f"where is {words[2]} told of {words[5]} by {words[9]}")


def test_the_same_command_asks_again_for_what_failed_and_another_like_begins_anew(
    docs, tmp_path, monkeypatch
):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(endpoint, "TRIES", 1)
    monkeypatch.setattr(endpoint, "FAILURES", 999)
    output, like = tmp_path / "out", tmp_path / "like.jsonl"
    with CompletionsStub(
        speak, lambda name, body: 500 if draw(name.partition(":")[0]) < 0.3 else None
    ) as stub:
        config = opened()

        def made(**others):
            folder = synthesize(str(docs), output, config, llm=stub.url, **others)
            return json.loads(folder.report.read_text())

        first = made()
        failed = first["language_model"]["failed_requests"]
        assert failed > 20
        assert f"{failed} of 160 requests brought no answer (HTTP 500" in first["notes"][-1]
        command = ["synth", str(docs), "--output", str(output), "--llm", stub.url]
        keys = [f"{name}={json.dumps(value)}" for name, value in overrides(config).items()]
        assert CliRunner().invoke(app, [*command, *keys]).exit_code == 1
        stub.fault, before = None, len(stub.asked)
        assert CliRunner().invoke(app, [*command, *keys]).exit_code == 0
        assert len(stub.asked) - before == failed
        assert made()["language_model"]["failed_requests"] == 0
        assert len(stub.asked) - before == failed
        like.write_text('{"query": "one of mine"}\n')
        assert made(like=like)["language_model"]["own_examples"] == 1
        like.write_text('{"query": "another one of mine"}\n')
        before = len(stub.asked)
        made(like=like)
        assert len(stub.asked) > before


def overrides(config):
    return config.model_dump(exclude_defaults=True, mode="json")


def test_a_budget_that_ends_before_the_first_query_is_named(docs, tmp_path):
    config, told = opened(budget_tokens=100), "query to train on yet: the budget of 100 tokens"
    with CompletionsStub(speak) as stub, pytest.raises(NothingLeftError, match=told):
        synthesize(str(docs), tmp_path / "out", config, llm=stub.url)


def test_descriptions_that_almost_fit_are_negatives_of_their_text_and_no_queries(docs, tmp_path):
    def describe(path, body):
        told = body["messages"][-1]["content"]
        words = told.partition("Passage: ")[2].split()
        kind = "almost" if "almost like this one" in told else "rightly"
        return said(f"{kind} speaks of {words[2]} and of {words[5]} near {words[9]}")

    config = opened(per_chunk=2, types={"abstract": 1, "misleading": 1}, examples=0)
    with CompletionsStub(describe) as stub:
        folder = synthesize(str(docs), tmp_path / "out", config, llm=stub.url)
    report = json.loads(folder.report.read_text())["waterfall"]["all"]
    assert report["misleading"] > 50
    written = [json.loads(line) for line in folder.candidates.read_text().splitlines()]
    assert {row["type"] for row in written} == {"abstract", "misleading"}
    rows = [json.loads(line) for line in folder.descriptions.read_text().splitlines()]
    splits = {row["positive"]: row["split"] for row in written}
    for row in rows:
        assert {split for text, split in splits.items() if row["query"].endswith(text)} == {"train"}
        (right,), (wrong,) = row["positive"], row["negatives"]
        assert right.startswith("rightly")
        assert wrong == right.replace("rightly", "almost")
    chunks = [row for row in written if row["split"] == "train" and not row["taken_by"]]
    both = {row["chunk"] for row in written if row["type"] == "misleading"}
    assert len(rows) == len({row["chunk"] for row in chunks} & both) > 10
    assert "almost" not in folder.training.read_text() + folder.queries.read_text()
    with CompletionsStub(speak) as stub:
        synthesize(str(docs), tmp_path / "out", opened(), llm=stub.url)
    assert not folder.descriptions.exists()
