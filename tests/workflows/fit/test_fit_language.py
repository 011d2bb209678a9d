"""The whole way with a language model that writes and a reranker that judges: the command, its exit codes, what it leaves."""

import json

from completions_stub import CompletionsStub, said
from document_toys import write_folder
from forks import embedtrain
from page_reader import read
from pair_toys import save_classifier

from embedtrain.workflows.fit import compose

KEY = "hidden-key-of-mine"


def speak(_, body):
    """Ask for a few words of the text."""
    words = body["messages"][-1]["content"].partition("Passage: ")[2].split()
    return said(f"where is {words[2]} told of {words[5]} by {words[9]}")


def refuse(*_):
    return said("I'm sorry, but I can't help with that.")


def for_toys():
    """A toy finds all texts alike, and learns nothing at the rates of grown models."""
    made = compose.PARTS["data"]

    def data(wish, plan):
        stage = made(wish, plan)
        stage["synth"]["settings"] |= {"cosine": 1, "round_trip": {"reader": None}}
        return stage

    compose.PARTS["data"] = data
    compose.PARTS["enough"] = lambda *_: {
        "require": {"data": "stage:data", "rows": 30, "dev": 4, "test": 4}
    }
    compose.TRAINER["learning_rate"] = 3e-3


def fit(bert, folder, stub, *more):
    words = ["fit", folder / "docs", "--llm", f"{stub.url}#toy", "--model", bert, *more]
    done = embedtrain([*words, "--budget", "20m", "--output", folder / "out"], before=for_toys)
    return done, " ".join(done.stderr.split())


def test_what_a_model_wrote_is_filtered_judged_trained_on_and_decided_about(
    bert, tmp_path, monkeypatch
):
    monkeypatch.setenv("EMBEDTRAIN_API_KEY", KEY)
    write_folder(tmp_path / "docs", 60)
    reranker = save_classifier(tmp_path / "reranker", "bert")
    with CompletionsStub(speak) as stub:
        done, errors = fit(bert, tmp_path, stub, "--reranker", reranker)
        assert set(stub.keys) == {f"Bearer {KEY}"}
    out = tmp_path / "out"
    assert done.returncode in (0, 3), errors
    verdict = json.loads((out / "gate/gate.json").read_text())
    assert verdict["ships"] == (done.returncode == 0)
    points = json.loads((out / "choice/select.json").read_text())["points"]
    trials = {name.partition(":")[0] for name in (point["name"] for point in points)}
    assert trials >= {"plain", "guided", "hard", "cleaned", "taught"}
    text = " ".join(read(out / "report.html").texts)
    for heading in (
        "What the reranker said",
        "taught: with the reranker's scores",
        "Language model toy",
    ):
        assert heading in text
    for path in out.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_a_model_that_refuses_leaves_the_start(bert, tmp_path):
    write_folder(tmp_path / "docs", 60)
    with CompletionsStub(refuse) as stub:
        done, errors = fit(bert, tmp_path, stub)
    assert done.returncode == 3
    assert "gives no query to train on" in errors
    assert "form took 120" in errors
    assert (tmp_path / "out/model").is_dir()
    assert "The start is the result" in " ".join(read(tmp_path / "out/report.html").texts)
