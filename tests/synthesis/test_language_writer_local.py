"""A language model of this process as a writer."""

import pytest
from writer_toys import chunks

from embedtrain.encoding.language.budget import Budget
from embedtrain.encoding.language.chat import as_completion
from embedtrain.encoding.language.local_chat import LocalChat
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel
from embedtrain.synthesis.candidate import Candidate
from embedtrain.synthesis.language_settings import LanguageConfig
from embedtrain.synthesis.language_writer import LanguageWriter, open_language_writer


@pytest.fixture(scope="module")
def model(language_model):
    return LanguageModel(language_model)


def local(model, output, *, budget_tokens=None, **keys):
    chat = LocalChat(model, thinks=False, budget=Budget(budget_tokens))
    config = LanguageConfig(**{"max_new_tokens": 8, **keys})
    return LanguageWriter(chat, config, output / "requests", [], 0)


def test_a_model_of_this_process_writes_the_same_after_a_kill(model, tmp_path):
    own, keys = chunks(5), {"examples": 0}
    expected = list(local(model, tmp_path / "a", **keys).write(own))
    assert all(isinstance(one, Candidate) and one.type == "question" for one in expected)
    assert {one.finish for one in expected} <= {"stop", "length", "empty"}
    assert all(one.log_probability < 0 for one in expected)
    kept = (tmp_path / "a" / "requests" / "part-00000.jsonl").read_bytes().splitlines(keepends=True)
    assert len(kept) == 10
    torn = tmp_path / "b" / "requests" / "part-00000.jsonl"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"".join(kept[:7]) + kept[7][:30])
    assert list(local(model, tmp_path / "b", **keys).write(own)) == expected
    assert list(local(model, tmp_path / "c", **keys).write(own)) == expected
    lines = sorted((tmp_path / "b" / "requests").iterdir())
    assert sum(path.read_bytes().count(b"\n") for path in lines) == 10


def test_a_log_gets_no_line_for_each_batch_but_one_when_it_is_time(
    model, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("embedtrain.encoding.language.local_chat.BATCH", 2)
    keys = {"examples": 0}
    list(local(model, tmp_path / "a", **keys).write(chunks(5)))
    (only,) = capsys.readouterr().err.splitlines()
    assert only.endswith(" writes (10)")
    monkeypatch.setattr("embedtrain.progress.LINE_SECONDS", 0)
    monkeypatch.setattr("embedtrain.progress.LINE_RATIO", 0)
    list(local(model, tmp_path / "b", **keys).write(chunks(5)))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert " writes: 4 of 10 answers (40%)" in lines[2]
    assert lines[2].endswith(" tokens/s")


def test_a_model_without_turns_goes_on_with_a_text(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    writer, asked = local(model, tmp_path, per_chunk=1), []
    monkeypatch.setattr(
        writer.chat, "_draft", lambda one, made=writer.chat._draft: asked.append(one) or made(one)
    )
    assert len(list(writer.write(chunks(2)))) == 2
    text = as_completion(asked[0].turns)
    assert text.endswith("\nQuery:")
    assert text.count("Query:") == 4


def test_a_template_that_knows_no_system_gets_its_words_with_the_first_question(tmp_path):
    from language_toys import CHAT, spelling_tokenizer

    from embedtrain.encoding.language.prompts import chat_text

    tokenizer = spelling_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + CHAT
    )
    found = chat_text(tokenizer, [("system", "rules"), ("user", "text")])
    assert found == "<turn>rules\n\ntext</turn><turn>"


def test_a_context_longer_than_the_model_is_refused(language_model, tmp_path):
    with pytest.raises(UserError, match="context is more than the model reads; got 99999"):
        open_language_writer(language_model, LanguageConfig(context=99999), tmp_path)


def test_a_budget_of_tokens_ends_a_model_of_this_process(model, tmp_path):
    writer = local(model, tmp_path, budget_tokens=100)
    assert list(writer.write(chunks(2))) == []
    assert "100 tokens" in writer.report()["ended"]
