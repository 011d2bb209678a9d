"""No fault of a file or a disk ends a command in a traceback, a hang, half a file or a loss.

There are some 26,000 faults of files that commands read, too many to run each time: they are drawn by a seed,
``EMBEDTRAIN_FAULT_SEED`` draws others. The fast test takes a few of each command; ``make prove`` more, with every
fault of the output's place and signals at six instants, and prints a table.
"""

import os
import shutil
import time
import zlib
from random import Random

import pytest
from fault_commands import COMMANDS
from fault_runner import input_cases, kill_cases, output_cases, run_cases
from fault_table import VERDICTS
from fault_world import build_world, embedtrain

QUICK = [command for command in COMMANDS if not command.slow]
FEW = 3
"""Cases of each command in the fast test."""
MANY = 90
"""Faults of its files in ``make prove``."""


@pytest.fixture(scope="session")
def world(
    bert,
    late_interaction,
    cross_encoder,
    language_model,
    masked_model,
    sparse_model,
    pairs,
    beir,
    forked_reloads,
    tmp_path_factory,
):
    del forked_reloads
    models = {"bert": bert, "late": late_interaction, "cross": cross_encoder}
    models |= {"language": language_model, "masked": masked_model, "sparse": sparse_model}
    return build_world(tmp_path_factory.mktemp("world"), models, pairs, beir)


def draw(command, cases, number):
    seed = f"{os.environ.get('EMBEDTRAIN_FAULT_SEED', '')}{command.name}"
    return Random(zlib.crc32(seed.encode())).sample(cases, min(number, len(cases)))


def check(cases, command, world, tmp_path, seconds, record_property):
    counts, bad = run_cases(cases, world, tmp_path, seconds)
    record_property("faults", [command.name, *(counts[verdict] for verdict in VERDICTS)])
    assert not bad, "\n\n".join(bad)


def time_of(command, world, tmp_path):
    """How long the command takes where nothing is wrong; it must work, or the matrix shows nothing."""
    folder = tmp_path / "undisturbed"
    shutil.copytree(world, folder)
    start = time.monotonic()
    code, _, said = embedtrain(command.words.split(), folder)
    assert code in command.ends, said
    return time.monotonic() - start


@pytest.mark.parametrize("command", QUICK, ids=lambda command: command.name)
def test_some_faults_are_handled(command, world, tmp_path, record_property):
    cases = [*input_cases(command, world), *output_cases(command), *kill_cases(command)]
    check(draw(command, cases, FEW), command, world, tmp_path, 1.0, record_property)


@pytest.mark.parametrize("name", ["train", "mine", "encode"])
def test_a_command_leaves_what_another_process_owns(name, world, tmp_path, record_property):
    command = next(one for one in COMMANDS if one.name == name)
    cases = [case for case in output_cases(command) if case.owned]
    assert len(cases) == 1
    check(cases, command, world, tmp_path, 1.0, record_property)


@pytest.mark.prove
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_many_faults_are_handled(command, world, tmp_path, record_property):
    seconds = time_of(command, world, tmp_path)
    cases = draw(command, list(input_cases(command, world)), MANY)
    cases += [*output_cases(command), *kill_cases(command)]
    check(cases, command, world, tmp_path, seconds, record_property)
