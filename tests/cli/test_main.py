"""The command line as a stranger meets it: headings, examples, the version, completion, and no waiting."""

import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from embedtrain import __version__
from embedtrain.cli.main import COMMANDS, app

ROOT = typer.main.get_command(app)
TYPO = """\
description: a typo
data: {sources: [{path: pairs.jsonl}]}
model: {backbone: org/name}
trainer: {stepz: 3}
"""
HEAVY = {"torch", "transformers", "pytorch_lightning", "datasets", "pyarrow", "scipy"}


def run(*arguments, **environment):
    return CliRunner().invoke(app, list(arguments), env=environment, prog_name="embedtrain")


def test_help_lists_every_command_once_under_its_heading_in_order():
    text = run("--help").stdout
    assert list(ROOT.commands) == [name for names in COMMANDS.values() for name in names]
    places = [text.index(f"─ {heading} ─") for heading in COMMANDS]
    assert places == sorted(places)
    for (heading, names), start in zip(COMMANDS.items(), places, strict=True):
        end = min([place for place in places if place > start], default=len(text))
        for name in names:
            assert f"│ {name} " in text[start:end], (heading, name)


@pytest.mark.parametrize("name", ROOT.commands)
def test_every_command_explains_itself_with_an_example(name):
    text = run(name, "--help").stdout
    assert f"embedtrain {name}" in text.split("Examples:")[1]
    assert name == "recipes" or "--quiet" in text


def test_the_version_is_that_of_the_package():
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, f"embedtrain {__version__}\n")


def test_a_command_that_does_not_exist_is_answered_with_one_that_does():
    done = run("evalute")
    assert done.exit_code == 2
    assert "'evaluate'" in done.output


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("embedtrain doc", ["doctor"]),
        ("embedtrain train dense/info", ["dense/info_nce"]),
        ("embedtrain check sts/cos", ["sts/cosent", "sts/cosine_regression"]),
        ("embedtrain recipes show quick", ["quickstart"]),
        ("embedtrain train my", []),
    ],
)
def test_a_shell_completes_commands_and_the_names_of_recipes(words, offered):
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = run(_EMBEDTRAIN_COMPLETE="complete_bash", **asked)
    assert done.stdout.split() == offered


LIGHT = """
import json, os, sys, tempfile
from embedtrain.cli.main import main
for line in sys.stdin:
    arguments, folder = json.loads(line)
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            for number in (1, 2):
                os.dup2(said.fileno(), number)
            os.chdir(folder)
            sys.argv, code = ["embedtrain", *arguments], 0
            try:
                main()
            except SystemExit as end:
                code = end.code
            print(sorted(HEAVY & set(sys.modules)), code, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        said.seek(0)
        print(json.dumps(said.read()), flush=True)
"""


@pytest.fixture(scope="module")
def light():
    """Run the command line in a fork of a process that has imported it and nothing of the tests."""
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    command = [sys.executable, "-c", f"HEAVY = {HEAVY}\n{LIGHT}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:

        def run(arguments, folder):
            process.stdin.write(json.dumps([arguments, str(folder)]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "Train"),
        (["train", "--help"], 0, "--resume"),
        (["recipes"], 0, "quickstart"),
        (["init", "--help"], 0, "--minutes"),
        (["train", "typo.yaml"], 2, "Did you mean steps?"),
        (["check", "typo.yaml"], 2, "Did you mean steps?"),
        (["train", "none.yaml"], 2, "does not exist"),
        (["train", "quickstart", "--output", "."], 2, "exists and is not empty"),
        (["train", "qickstart"], 2, "qickstart does not exist. Did you mean quickstart?"),
        (["train", "quickstart", "validation={}"], 2, "give either path or fraction"),
        (["train", "quickstart", "trainer.epochs=4"], 2, "give either steps or epochs"),
        (["check", "quickstart", "trainer.patience=1", "validation=null"], 2, "add validation"),
        (
            ["train", "quickstart", "objective={name: 'nopkg.mod:X'}"],
            2,
            "needs nopkg, which is not",
        ),
        (
            ["train", "--resume", "nothere"],
            2,
            "nothere holds nothing to go on with: no run was begun there",
        ),
        (["report", "nothere", "--output", "a.html"], 2, "nothere does not exist"),
        (["init", "typo.yaml"], 2, "unknown ending"),
        (
            ["doctor", "mine.yaml", "--tune"],
            2,
            "--tune times kernels, not a recipe; got 'mine.yaml'.",
        ),
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(light, tmp_path, arguments, code, said):
    (tmp_path / "typo.yaml").write_text(TYPO)
    told = light(arguments, tmp_path)
    assert said in told
    assert told.splitlines()[-1] == f"[] {code}"
