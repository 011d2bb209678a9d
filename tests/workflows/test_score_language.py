"""Language models score training rows."""

import json
import signal
from itertools import combinations

import numpy as np
import pytest
from forks import fork, signal_on_call

from embedtrain.cli.main import app
from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.encoding.language import yes_no
from embedtrain.encoding.language.likelihood import Likelihood
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.pair_scorers import open_pair_scorer
from embedtrain.errors import UserError
from embedtrain.workflows import score as workflow
from embedtrain.workflows.score import score

KINDS = ["yes_no", "likelihood", "graded", "listwise", "pairwise", "answer", "attribution"]


@pytest.fixture(autouse=True)
def any_mass(monkeypatch):
    """A random model is about to say anything."""
    monkeypatch.setattr(yes_no, "LEAST_MASS", 0)
    monkeypatch.setattr(workflow, "EXAMPLES_PER_LANGUAGE_BLOCK", 4)


@pytest.fixture
def rows(pairs):
    return SourceConfig(path=str(pairs), limit=10)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_get_the_scores_of_the_language_model(kind, language_model, rows, tmp_path):
    answers = tmp_path / "answers.jsonl"
    queries = {example.query for example in open_source(rows).examples()}
    answers.write_text("".join(json.dumps({"query": q, "answer": "no"}) + "\n" for q in queries))
    writes = kind in ("answer", "attribution")
    settings = LanguageSettings(length=300, answers=str(answers) if writes else None)
    assert (
        score(language_model, rows, tmp_path / "scored.jsonl", kind=kind, language=settings) == 10
    )
    scorer = open_pair_scorer(language_model, kind=kind, language=settings)
    for example in open_source(SourceConfig(path=str(tmp_path / "scored.jsonl"))).examples():
        pairs = [(example.query, text) for text in (*example.positives, *example.negatives)]
        assert example.scores == pytest.approx(scorer.logits(pairs), abs=1e-5)
    origin = json.loads((tmp_path / "scored.teacher.json").read_text())
    assert origin["teacher"] == language_model
    assert (origin["kind"], origin["precision"]) == (kind, "fp32")
    assert ("{passages}" if kind in ("listwise", "pairwise") else "{document}") in origin[
        "template"
    ]


def test_cosines_are_those_of_the_states_behind_the_prompts(language_model, write_jsonl, tmp_path):
    texts = ["red house", "a dog", "no", "cat"]
    lists = [texts, texts[1:], texts[:1], ["x"], texts[::-1]]
    data = [{"query": f"is it {n}?", "pos": own[0], "neg": own[1:]} for n, own in enumerate(lists)]
    rows = SourceConfig(path=str(write_jsonl(data)))
    plain, out = tmp_path / "plain.jsonl", tmp_path / "scored.jsonl"
    score(language_model, rows, plain, kind="yes_no")
    score(language_model, rows, out, kind="yes_no", language=LanguageSettings(gram=True))
    scorer = open_pair_scorer(language_model, kind="yes_no")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [len(line["teacher_gram"]) for line in lines] == [6, 3, 0, 0, 6]
    for line in lines:
        texts = [*line["positives"], *line["negatives"]]
        _, states = scorer.logits_and_states([(line["query"], text) for text in texts])
        units = states / np.linalg.norm(states, axis=1, keepdims=True)
        expected = [float(a @ b) for a, b in combinations(units, 2)]
        assert line.pop("teacher_gram") == pytest.approx(expected, abs=1e-4)
    assert lines == [json.loads(line) for line in plain.read_text().splitlines()]
    read = list(open_source(SourceConfig(path=str(out))).examples())
    assert all(len(e.teacher_gram) == len(e.scores) * (len(e.scores) - 1) / 2 for e in read)


@pytest.mark.parametrize("kind", ["likelihood", "graded", "encoder"])
def test_cosines_need_a_model_that_says_yes_or_no(kind, language_model, rows, tmp_path):
    asked = LanguageSettings(gram=True)
    with pytest.raises(UserError, match=f"--gram needs the states.*as {kind}"):
        score(language_model, rows, tmp_path / "scored.jsonl", kind=kind, language=asked)
    with pytest.raises(UserError, match="--gram needs the states"):
        score("http://x/v1", rows, tmp_path / "scored.jsonl", kind="yes_no", language=asked)


def test_rows_of_one_query_that_follow_one_another_are_lists_of_their_own(
    language_model, write_jsonl, tmp_path
):
    texts = ["red house", "a dog", "no", "cat"]
    rows = [{"query": "is it red?", "positive": texts[0], "negatives": texts[1:]}] * 2
    data = SourceConfig(path=str(write_jsonl(rows)))
    score(language_model, data, tmp_path / "scored.jsonl", kind="listwise")
    for line in (tmp_path / "scored.jsonl").read_text().splitlines():
        assert sorted(json.loads(line)["scores"]) == [0, 1, 2, 3]


def test_a_killed_scoring_goes_on_and_another_template_starts_anew(language_model, rows, tmp_path):
    out = tmp_path / "out.jsonl"
    score(language_model, rows, tmp_path / "whole.jsonl", kind="likelihood")

    def work():
        signal_on_call(Likelihood, "logits", 3)
        score(language_model, rows, out, kind="likelihood")

    assert fork(work).returncode == -signal.SIGKILL
    assert len((tmp_path / "out.partial").read_text().splitlines()) == 8
    score(language_model, rows, out, kind="likelihood")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()

    assert fork(work).returncode == -signal.SIGKILL
    upr = LanguageSettings(template="upr")
    score(language_model, rows, out, kind="likelihood", language=upr)
    score(language_model, rows, tmp_path / "upr.jsonl", kind="likelihood", language=upr)
    assert out.read_bytes() == (tmp_path / "upr.jsonl").read_bytes()


def test_a_language_model_is_not_embedded_unasked(language_model, rows, tmp_path):
    for path in (language_model, "model.gguf"):
        with pytest.raises(UserError, match="Say what it is with --as: yes_no, likelihood"):
            score(path, rows, tmp_path / "scored.jsonl")


def test_scores_that_are_no_numbers_stop_the_work(language_model, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(Likelihood, "logits", lambda self, pairs: np.full(len(pairs), np.nan))
    with pytest.raises(UserError, match="row 1 gets a score that is no finite number"):
        score(language_model, rows, tmp_path / "scored.jsonl", kind="likelihood")
    assert not (tmp_path / "scored.jsonl").exists()


def test_a_model_that_is_no_language_model_is_refused_as_one(bert, rows, tmp_path):
    with pytest.raises(UserError, match="is no causal language model"):
        score(bert, rows, tmp_path / "scored.jsonl", kind="yes_no")


def test_a_file_that_is_no_gguf_is_refused(rows, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        score(str(tmp_path / "none.gguf"), rows, tmp_path / "scored.jsonl", kind="yes_no")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF no")
    with pytest.raises(UserError, match=r"bad\.gguf"):
        score(str(tmp_path / "bad.gguf"), rows, tmp_path / "scored.jsonl", kind="yes_no")


def test_the_command_says_how_a_language_model_is_asked(language_model, pairs, tmp_path):
    from typer.testing import CliRunner

    words = [
        "score", language_model, "--as", "yes_no", "--yes", "good", "--no", "bad", "--instruction",
        "Find cats", "--gram", "--data", str(pairs), "--output", str(tmp_path / "scored.jsonl"),
    ]  # fmt: skip
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    origin = json.loads((tmp_path / "scored.teacher.json").read_text())
    assert (origin["yes"], origin["no"]) == ("good", "bad")
    assert "Find cats" in origin["template"]
    assert "teacher_gram" in json.loads((tmp_path / "scored.jsonl").read_text().splitlines()[0])


def test_cut_documents_are_told_once_and_over_all_processes(
    language_model, rows, tmp_path, capsys, monkeypatch
):
    out, settings = tmp_path / "out.jsonl", LanguageSettings(length=70, template="passage")
    score(language_model, rows, tmp_path / "whole.jsonl", kind="likelihood", language=settings)
    lines = [line for line in capsys.readouterr().err.splitlines() if "longer than" in line]
    assert len(lines) == 1

    def work():
        signal_on_call(Likelihood, "logits", 3)
        score(language_model, rows, out, kind="likelihood", language=settings)

    assert fork(work).returncode == -signal.SIGKILL
    score(language_model, rows, out, kind="likelihood", language=settings)
    assert lines[0] in capsys.readouterr().err.splitlines()
    score(language_model, rows, tmp_path / "long.jsonl", kind="likelihood")
    assert "longer than" not in capsys.readouterr().err
