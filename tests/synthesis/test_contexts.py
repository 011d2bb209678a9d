"""Tasks with answers about contexts: how they are drawn, asked for, read, judged and written."""

import json
import re

import pytest
from completions_stub import CompletionsStub, said
from typer.testing import CliRunner
from writer_toys import chunks

from embedtrain.cli.main import app
from embedtrain.encoding.language.answers import read_answers
from embedtrain.encoding.language.chat import Reply
from embedtrain.errors import NothingLeftError, UserError
from embedtrain.synthesis.context_rows import judged
from embedtrain.synthesis.context_writer import Written
from embedtrain.synthesis.contexts import Context, ContextConfig, draw_contexts
from embedtrain.synthesis.output import SynthesisFolder
from embedtrain.synthesis.replies import Answered, json_tasks
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.workflows.synthesize import plan, synthesize

pytestmark = pytest.mark.usefixtures("no_waits")

CONTEXTS = {"texts": 3, "number": 4, "tasks": ["question", "several", "claim"]}
GOOD = [
    {"slot": 1, "text": "Who built pump {0} of the works?", "answer": "Ann", "texts": [2]},
    {"slot": 2, "text": "Which pumps came before {0} anywhere?", "answer": "7 and 9", "texts": [1, 3]},
    {"slot": 3, "text": "Pump {0} never ran a day.", "answer": "False", "texts": "3"},
]  # fmt: skip


def config(**keys):
    language = {"endpoint": {"served_name": "toy", "concurrency": 4}}
    return SynthesisConfig.model_validate(
        {"round_trip": {"reader": None}, "contexts": CONTEXTS, "language": language} | keys
    )


def write(path, body):
    """Answer the tasks of a context, which the numbers of its texts stand for."""
    place = " or ".join(re.findall(r"plant (\d+)", body["messages"][-1]["content"]))
    return said(
        json.dumps({"queries": [one | {"text": one["text"].format(place)} for one in GOOD]})
    )


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [{"id": one.id, "text": one.text} for one in chunks(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_context_is_a_chunk_and_its_nearest_whatever_the_order():
    texts = chunks(30)
    settings = ContextConfig(texts=3, number=10)
    found = draw_contexts(texts, settings, 0)
    assert [len(one.chunks) for one in found] == [3] * len(found)
    turned = draw_contexts(texts[::-1], settings, 0)
    assert {one.id for one in turned} == {one.id for one in found}
    assert all(len({chunk.id for chunk in one.chunks}) == 3 for one in found)
    with pytest.raises(UserError, match="more than the 2 chunks"):
        draw_contexts(texts[:2], settings, 0)


def test_rows_hold_the_whole_context_and_answers_stand_beside_them(corpus, tmp_path):
    output = tmp_path / "out"
    with CompletionsStub(write) as stub:
        found = plan(str(corpus), output, config(), llm=stub.url).forecast
        keys = ["round_trip.reader=null", f"contexts={json.dumps(CONTEXTS)}"]
        keys.append("language.endpoint={served_name: toy, concurrency: 4}")
        words = ["synth", str(corpus), "--output", str(output), "--llm", stub.url, *keys]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.exception
        assert "nothing is held out" in done.output
        folder = SynthesisFolder(output)
        asked = len(stub.asked)
        synthesize(str(corpus), output, config(), llm=stub.url)
        folder.report.unlink()
        synthesize(str(corpus), output, config(), llm=stub.url)
        assert len(stub.asked) == asked == found["contexts"], "answers are kept"
    [body, *_] = [body for _, body in stub.asked]
    system, user = (turn["content"] for turn in body["messages"])
    assert "all tasks about the same texts" in system
    assert user.count("Text 1: ") == user.count("Text 3: ") == 1
    assert "Slot 2: Write one question whose answer needs" in user
    rows, answers = lines(folder.training), read_answers(folder.answers)
    assert len(rows) == 3 * asked
    assert {row["query"] for row in rows} == answers.keys()
    for row in rows:
        assert len({*row["positives"], *row["negatives"]}) == 3
        assert len(row["positives"]) == (2 if row["task"] == "several" else 1)
    by_context = {}
    for row in rows:
        texts = sorted(row["positives"] + row["negatives"])
        assert by_context.setdefault(row["context"], texts) == texts, "tasks share their context"
    report = json.loads(folder.report.read_text())
    assert report["waterfall"]["all"] == {"written": 3 * asked, "kept": 3 * asked}
    assert report["language_model"]["requests"] == asked


def test_an_answer_in_words_is_asked_for_again(corpus, tmp_path):
    refused = set()

    def write_late(path, body):
        user = body["messages"][-1]["content"]
        if user in refused:
            return write(path, body)
        refused.add(user)
        return said("Sure! Here are your tasks.")

    with CompletionsStub(write_late) as stub:
        folder = synthesize(str(corpus), tmp_path / "out", config(), llm=stub.url)
    assert len(stub.asked) == 2 * len(refused)
    assert len(lines(folder.training)) == 3 * len(refused)
    report = json.loads(folder.report.read_text())
    assert report["language_model"]["unusable_answers"] == {"no task in JSON": len(refused)}


def test_slots_answers_and_numbers_are_read_as_models_write_them():
    text = '```json\n{"queries": [{"slot": "2", "text": " a  b ", "answer": 7, "texts": [1, "3", 1]},]}\n```'
    found, problem = json_tasks(Reply(text, "stop"), 2)
    assert (found, problem) == ({2: Answered("a b", "7", (1, 3))}, "")
    assert json_tasks(Reply("no", "stop"), 2) == ({}, "no task in JSON")


@pytest.mark.parametrize(
    ("task", "query", "answer", "texts", "taken_by"),
    [
        ("question", "Who built the old pump?", "Ann", (1,), ""),
        ("question", "Who built the old pump?", "Ann", (4,), "texts"),
        ("question", "Who built the old pump?", "Ann", (), "texts"),
        ("several", "Which pumps came before it?", "two", (2,), "texts"),
        ("question", "Who built the old pump?", "", (1,), "answer"),
        ("question", "Who built the old pump?", "one two three four five", (1,), "answer"),
        ("relation", "Ann, builder of what", "builder", (1,), "answer"),
        ("claim", "Ann built the old pump.", "yes", (1,), "answer"),
        ("claim", "Ann built the old pump.", "True.", (1,), ""),
        ("question", "Who is the author of this text?", "Ann", (1,), "source_words"),
        ("question", "pump", "Ann", (1,), "form"),
    ],
)
def test_what_cannot_be_believed_is_taken(task, query, answer, texts, taken_by):
    context = Context("c", tuple(chunks(3)))
    written = Written(context, task, 1, Answered(query, answer, texts), "stop")
    settings = config(contexts=CONTEXTS | {"answer_words": 4})
    [row] = judged([written], settings, "toy")
    assert row.row.taken_by == taken_by
    both = judged([written, written], settings, "toy")
    assert both[1].row.taken_by == (taken_by or "duplicate")


def test_what_cannot_be_done_is_one_line(corpus, tmp_path):
    keys = ["round_trip.reader=null", f"contexts={json.dumps(CONTEXTS)}"]
    for more, words in (
        ([], "contexts are written about by a language model"),
        (["makers=[title]"], "drop makers and judge"),
    ):
        done = CliRunner().invoke(
            app, ["synth", str(corpus), "--output", str(tmp_path / "no"), *keys, *more]
        )
        assert isinstance(done.exception, UserError), done.output
        assert words in str(done.exception)
    with CompletionsStub(lambda *_: said("no")) as stub:
        with pytest.raises(NothingLeftError, match="gives no task"):
            synthesize(str(corpus), tmp_path / "empty", config(), llm=stub.url)
        short = config(language={"context": 300, "endpoint": {"served_name": "toy"}})
        with pytest.raises(UserError, match="no room for 3 texts"):
            synthesize(str(corpus), tmp_path / "short", short, llm=stub.url)
