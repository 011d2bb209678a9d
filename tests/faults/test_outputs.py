"""Every command that writes meets a disk that does not take it: one line, exit code 2, nothing left behind."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from disks import disk, make_read_only, names
from forks import embedtrain
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.locks import lock_of, owned

RECIPE = """\
description: a run that never begins
data: {{sources: [{{path: {pairs}}}]}}
model: {{backbone: {bert}}}
objective: {{name: info_nce}}
trainer: {{batch_size: 4, steps: 1, accelerator: cpu}}
"""


@dataclass(frozen=True)
class Inputs:
    """What commands read."""

    bert: str
    late: str
    pairs: Path
    beir: Path
    folder: Path


@pytest.fixture(scope="module")
def inputs(bert, late_interaction, pairs, beir, sentences, tmp_path_factory, forked_reloads):
    del forked_reloads  # exports are reloaded in forks
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "texts.txt").write_text("\n".join(sentences) + "\n")
    generator = np.random.default_rng(0)
    np.save(folder / "d.npy", generator.normal(size=(60, 8)).astype(np.float32))
    np.save(folder / "q.npy", generator.normal(size=(40, 8)).astype(np.float32))
    (folder / "pairs.tsv").write_text("".join(f"{row}\t{row}\n" for row in range(40)))
    (folder / "recipe.yaml").write_text(RECIPE.format(pairs=pairs, bert=bert))
    every = Inputs(bert, late_interaction, pairs, beir, folder)
    done = run(COMMANDS["evaluate"], every, folder / "result.json")
    assert done.exit_code == 0, done.output
    return every


Words = Callable[[Inputs], list[object]]


@dataclass(frozen=True)
class Command:
    """How a command is called, and the name of its output."""

    name: str
    words: Words
    output: str = "out"
    resumes: tuple[str, ...] = ()
    """What is kept on purpose when it ends early: the same command goes on there."""
    longest: int = 255
    """Bytes of the longest name that its files beside the output leave room for."""


def _texts(i: Inputs) -> Path:
    return i.folder / "texts.txt"


def _vectors(i: Inputs) -> list[object]:
    files = (("queries", "q.npy"), ("documents", "d.npy"), ("pairs", "pairs.tsv"))
    given = [word for flag, name in files for word in (f"--{flag}", i.folder / name)]
    return [*given, "kind=linear", "steps=2", "batch_size=8"]


COMMANDS = {
    one.name: one
    for one in (
        Command("encode", lambda i: [i.bert, _texts(i)], "out.npy"),
        Command("encode tokens", lambda i: [i.late, _texts(i)], "out.npy", longest=247),
        Command(
            "encode shards",
            lambda i: [i.bert, _texts(i), "--rows-per-shard", 150],
            resumes=("", "/plan.json", "/part-00001.npy"),
        ),
        Command(
            "mine",
            lambda i: [i.bert, "--data", i.beir, "--split", "dev", "num_negatives=2"],
            resumes=("", "/parts", "/parts/000000.jsonl", "/parts/fingerprint"),
        ),
        Command(
            "score",
            lambda i: [i.bert, "--data", i.pairs],
            "out.jsonl",
            resumes=(".fingerprint", ".partial"),
        ),
        Command("tokenizer", lambda i: [_texts(i), "--vocabulary-size", 310]),
        Command(
            "static",
            lambda i: [
                *(i.bert, _texts(i)),
                *("dim=8", "removed=1", "steps=1", "min_count=1", "per_word=2"),
            ],
        ),
        Command("adapt", _vectors),
        Command("evaluate", lambda i: [i.bert, "--data", i.beir, "--no-efficiency"], "out.json"),
        Command("merge", lambda i: [i.bert, i.bert]),
        Command("rotate", lambda i: [i.bert, _texts(i), "--texts"]),
        Command("calibrate", lambda i: [i.bert, _texts(i), "--texts"]),
        Command("probe", lambda i: [i.bert, "passkey", "--size", 20, "--length", 20], "out.json"),
        Command("report", lambda i: [i.folder / "result.json"], "out.html"),
        Command(
            "compare", lambda i: [i.folder / "result.json", i.folder / "result.json"], "o.json"
        ),
        Command("export", lambda i: [i.bert]),
        Command("init", lambda i: [i.pairs, "--model", i.bert, "--yes"], "out.yaml"),
        Command("train", lambda i: [i.folder / "recipe.yaml"]),
    )
}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda one: one.name)


def words_of(command: Command, inputs: Inputs, output: Path) -> list[str]:
    words = [command.name.split()[0], *command.words(inputs), "--output", output]
    return [str(word) for word in words]


def run(command: Command, inputs: Inputs, output: Path):
    return CliRunner().invoke(app, words_of(command, inputs, output))


def refusal(command: Command, inputs: Inputs, output: Path) -> str:
    done = run(command, inputs, output)
    assert isinstance(done.exception, UserError), (done.output, done.exception)
    return str(done.exception)


@every_command
def test_the_output_appears_in_folders_that_are_made_and_nothing_beside_it(
    command, inputs, tmp_path
):
    done = run(command, inputs, tmp_path / "new" / "deep" / command.output)
    assert done.exit_code == 0, (done.output, done.exception)
    hidden = [path.name for path in tmp_path.rglob(".*")]
    assert hidden == []
    assert (tmp_path / "new" / "deep" / command.output).exists()


@every_command
@pytest.mark.parametrize("free_pages", [0, 1, 3])
def test_a_full_disk_is_one_line_with_what_is_free(command, free_pages, inputs, tmp_path):
    with disk(tmp_path / "disk", free_pages=free_pages) as place:
        done = run(command, inputs, place / "new" / command.output)
        if free_pages and done.exit_code == 0:  # a small file finds room there
            return
        message = str(done.exception)
        assert isinstance(done.exception, UserError), message
        assert "the disk is full" in message
        assert " free" in message
        left = names(place)
    kept = {f"new/out{end}" for end in command.resumes}
    assert left == [] or (kept and set(left) <= {"new", *kept})


@every_command
def test_a_read_only_disk_is_said_before_the_work(command, inputs, tmp_path):
    with disk(tmp_path / "disk") as place:
        make_read_only(place)
        message = refusal(command, inputs, place / command.output)
        assert "lies on a read-only disk" in message
        assert names(place) == []


@every_command
def test_a_name_too_long_for_the_disk_is_said(command, inputs, tmp_path):
    long = "x" * 256 + command.output
    assert "has a name too long" in refusal(command, inputs, tmp_path / "new" / long)
    assert list(tmp_path.iterdir()) == []


@every_command
def test_a_name_as_long_as_the_disk_allows_is_written(command, inputs, tmp_path):
    output = tmp_path / command.output.rjust(command.longest, "x")
    done = run(command, inputs, output)
    assert done.exit_code == 0, (done.output, done.exception)
    assert output.exists()
    assert [path.name for path in tmp_path.glob(".*")] == []


@every_command
def test_a_file_in_the_way_is_said(command, inputs, tmp_path):
    (tmp_path / "file").write_text("mine")
    message = refusal(command, inputs, tmp_path / "file" / command.output)
    assert "lies below" in message
    assert (tmp_path / "file").read_text() == "mine"


@every_command
def test_of_two_processes_on_one_output_the_second_is_told_who_owns_it(command, inputs, tmp_path):
    output = tmp_path / command.output
    with owned(output):
        held = lock_of(output).read_text()
        second = embedtrain(words_of(command, inputs, output), before=_forget)
        assert lock_of(output).read_text() == held
    assert second.returncode == 2, second.stderr
    pid = json.loads(held)["pid"]
    assert f"is being written by another process; got 'process {pid} on " in second.stderr
    assert "running since 20" in second.stderr
    assert names(tmp_path) == []


def _forget() -> None:
    """A fork of the owner works under its lock; a stranger does not."""
    import os

    del os.environ["EMBEDTRAIN_HOLDS"]
