"""--quiet and --verbose stand before or after a command and reach the processes that it starts."""

import logging
import os

import pytest
import typer
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.cli.verbosity import audible
from embedtrain.progress import VERBOSITY, console


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    monkeypatch.setenv(VERBOSITY, "")  # restored afterwards, whatever a command sets
    yield
    for package in ("embedtrain", "bitsandbytes"):
        logging.getLogger(package).setLevel(logging.NOTSET)


def work(number: int = 3) -> None:
    """Say something and give a result."""
    console.print("working")
    typer.echo(f"result {number}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "working\n"), (["--quiet"], ""), (["-q", "--number", "4"], ""), (["-v"], "working\n")],
)
def test_a_quiet_command_gives_its_result_only(arguments, said):
    alone = typer.Typer()
    alone.command()(audible(work))
    done = CliRunner().invoke(alone, arguments)
    assert done.stderr == said
    assert done.stdout == f"result {4 if '--number' in arguments else 3}\n"


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        (["--quiet", "check", "none.yaml"], "quiet"),
        (["check", "none.yaml", "--quiet"], "quiet"),
        (["-v", "check", "none.yaml"], "verbose"),
        (["check", "-v", "none.yaml"], "verbose"),
        (["check", "none.yaml"], ""),
    ],
)
def test_both_positions_mean_the_same(arguments, level):
    assert "none.yaml does not exist" in str(CliRunner().invoke(app, arguments).exception)
    assert os.environ[VERBOSITY] == level


def test_both_at_once_are_refused():
    assert "exclude each other" in str(
        CliRunner().invoke(app, ["check", "x", "-q", "-v"]).exception
    )


def test_verbose_shows_what_the_package_logs():
    CliRunner().invoke(app, ["-v", "check", "none.yaml"])
    assert logging.getLogger("embedtrain.models.encoder").isEnabledFor(logging.INFO)
    assert not logging.getLogger("transformers").isEnabledFor(logging.INFO)


@pytest.mark.parametrize(("option", "said"), [([], False), (["-v"], True)])
def test_what_bitsandbytes_misses_is_said_only_when_much_is_wanted(option, said):
    CliRunner().invoke(app, [*option, "check", "none.yaml"])
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    assert log.isEnabledFor(logging.WARNING) is said
