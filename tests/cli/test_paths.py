"""Every path that every command takes, with what cannot be one: a line and code 2, and nothing is touched."""

import json
import os
import stat
from inspect import signature
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from embedtrain.cli.command import PATHS
from embedtrain.cli.ending import end
from embedtrain.cli.main import app
from embedtrain.errors import UserError

COMMANDS = {
    name: command
    for name, command in typer.main.get_command(app).commands.items()
    if hasattr(command, "params") and not hasattr(command, "commands")
}
TEXTS = {
    *(
        "clusters",
        "column",
        "device",
        "instruction",
        "kind",
        "long_inputs",
        "metric",
        "mteb",
        "name",
        "negatives",
    ),
    *(
        "overrides",
        "positive",
        "push",
        "query",
        "split",
        "task",
        "method",
        "granularity",
        "quantize",
    ),
    *("side", "form", "cost", "verbosity"),
    *("budget", "guard_split", "threshold"),
    *("readers", "quality"),  # a rule, or a file of scores
    *("host", "allow_host", "dimensions"),
    "larger",  # a model or an address
    "llm",  # an address, or a model of any kind
    # A template may be a file, and is mostly a name or the text itself.
    *("template", "yes", "no", "normalize", "served_name", "labels", "attribution"),
    *("rerank_as", "rerank_template", "rerank_instruction"),
    # An index is a kind or the address of an engine.
    *("index", "into", "fuse", "weights", "tune_on", "forms", "feedback"),
}
"""Parameters that name no file."""
TAKEN = [
    (name, one.name)
    for name, command in COMMANDS.items()
    for one in command.params
    if one.name in PATHS and not getattr(one, "is_flag", False)
]
COLUMNS = {("init", "query"), ("init", "positive"), ("init", "negatives")}


def words_of(name, given):
    """The words of a command: what it must have, and what is given."""
    arguments, options = [], []
    for one in COMMANDS[name].params:
        if one.name not in given and not one.required:
            continue
        value = given.get(one.name, "x")
        if one.param_type_name == "argument":
            arguments.append(value)
        else:
            options += [one.opts[0], value]
    return [name, *arguments, *options]


def run(words):
    """Run a command here; return its exit code and what it said."""
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, SystemExit) or done.exception is None:
        return done.exit_code, done.output
    return end(done.exception), str(done.exception)


def listed():
    return sorted(path.name for path in Path.cwd().iterdir())


def test_every_parameter_is_known_to_name_a_file_or_not():
    for name, command in COMMANDS.items():
        for one in signature(command.callback).parameters.values():
            says_text = "str" in str(one.annotation) or "Path" in str(one.annotation)
            if says_text and "Path" in str(one.annotation):
                assert one.name in PATHS, (name, one.name)
            elif says_text and (name, one.name) not in COLUMNS:
                assert one.name in PATHS | TEXTS, (name, one.name)


@pytest.mark.parametrize(("name", "parameter"), TAKEN, ids=map("-".join, TAKEN))
def test_what_is_no_name_of_a_file_is_refused_at_once(name, parameter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    for value in ("", "a\0b", "n" * 300, "pipe", "/dev/null", "loop"):
        with pytest.raises(UserError) as caught:
            CliRunner().invoke(app, words_of(name, {parameter: value}), catch_exceptions=False)
        assert len(str(caught.value).splitlines()) == 1
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    assert listed() == ["loop", "pipe"]


GOOD = {
    "init": {"data": "pairs.jsonl", "output": "new.yaml"},
    "train": {"recipe": "quickstart", "output": "new"},
    "adapt": {"documents": "d.npy", "queries": "d.npy", "pairs": "pairs.tsv", "output": "new"},
    "static": {"model": "bert", "texts": "texts.txt", "output": "new"},
    "tokenizer": {"paths": "texts.txt", "output": "new"},
    "synth": {"corpus": "texts.txt", "output": "new"},
    "mine": {"model": "bert", "data": "beir", "output": "new"},
    "score": {"teacher": "bert", "data": "pairs.jsonl", "output": "new.jsonl"},
    "search": {"model": "bert", "query": "x", "data": "beir"},
    "encode": {"model": "bert", "texts": "texts.txt", "output": "new.npy"},
    "evaluate": {"model": "bert", "data": "beir", "output": "new.json", "baseline": "result.json"},
    "compare": {"results": "result.json", "output": "new.json", "plot": "new.svg"},
    "pareto": {"results": "result.json", "plot": "new.svg"},
    "report": {"sources": "result.json", "output": "new.html", "baseline": "result.json"},
    "export": {
        "source": "bert",
        "output": "new",
        "results": "result.json",
        "probabilities": "result.json",
    },
    "merge": {"models": "bert", "output": "new", "base": "bert"},
    "rotate": {"model": "bert", "data": "pairs.jsonl", "output": "new"},
    "calibrate": {"model": "bert", "data": "pairs.jsonl", "output": "new"},
    "prune-layers": {"model": "bert", "texts": "texts.txt", "output": "new"},
    "probe": {"model": "bert", "name": "perturbations", "data": "beir", "output": "new.json"},
    "check": {"recipe": "quickstart"},
    "doctor": {"recipe": "quickstart"},
}
INPUTS = [
    ("init", "data"), ("train", "recipe"), ("train", "resume"), ("check", "recipe"),
    ("doctor", "recipe"), ("adapt", "documents"), ("adapt", "queries"), ("adapt", "pairs"),
    ("static", "texts"), ("static", "model"), ("tokenizer", "paths"), ("synth", "corpus"), ("mine", "data"),
    ("mine", "model"), ("score", "data"), ("score", "teacher"), ("score", "first"), ("search", "data"),
    ("search", "model"), ("search", "like"), ("encode", "texts"), ("encode", "model"),
    ("evaluate", "data"), ("evaluate", "model"), ("evaluate", "baseline"), ("compare", "results"),
    ("pareto", "results"), ("report", "sources"), ("report", "baseline"), ("report", "data"),
    ("export", "source"), ("merge", "models"), ("merge", "base"), ("rotate", "data"),
    ("rotate", "model"), ("calibrate", "data"), ("calibrate", "model"), ("prune-layers", "texts"), ("probe", "data"), ("probe", "model"),
]  # fmt: skip
OUTPUTS = [
    (name, key) for name, given in GOOD.items() for key in given if key in ("output", "plot")
]
FOLDERS_MADE = {
    "train",
    "adapt",
    "static",
    "tokenizer",
    "synth",
    "mine",
    "export",
    "merge",
    "rotate",
    "calibrate",
}


@pytest.fixture(scope="module")
def place(bert, beir, pairs, tmp_path_factory):
    """A folder of what commands read, and of what they cannot."""
    import numpy as np

    folder = tmp_path_factory.mktemp("place")
    for name, target in (("bert", bert), ("beir", beir), ("pairs.jsonl", pairs)):
        (folder / name).symlink_to(target)
    np.save(folder / "d.npy", np.eye(4, dtype=np.float32))
    (folder / "pairs.tsv").write_text("0\t0\n1\t1\n")
    (folder / "texts.txt").write_text("the red cat\na blue dog\n" * 10)
    (folder / "folder" / "inside").mkdir(parents=True)
    (folder / "file").write_bytes(b"no JSON, no YAML, no text: [\xff\0")
    (folder / "result.json").write_text(json.dumps({"data": 3}))
    return folder


@pytest.mark.parametrize(("name", "parameter"), INPUTS, ids=map("-".join, INPUTS))
def test_what_cannot_be_read_is_a_line_and_code_2(name, parameter, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = listed()
    for value in ("missing", "folder", "file", "file/below"):
        code, said = run(words_of(name, GOOD[name] | {parameter: value}))
        assert code == 2, (value, said)
    assert "Traceback" not in capsys.readouterr().err
    assert listed() == before


@pytest.mark.parametrize(("name", "parameter"), OUTPUTS, ids=map("-".join, OUTPUTS))
def test_what_cannot_be_written_is_a_line_and_code_2(name, parameter, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = listed()
    ending = GOOD[name][parameter].removeprefix("new")
    (place / f"folder/inside{ending}").mkdir(exist_ok=True)
    wrong = ["file" if name in FOLDERS_MADE else f"folder/inside{ending}", f"file/below{ending}"]
    for value in wrong:
        code, said = run(words_of(name, GOOD[name] | {parameter: value}))
        assert code == 2, (value, said)
    assert "Traceback" not in capsys.readouterr().err
    assert listed() == before
