"""No fault of a file or a disk ends a command in a traceback, a hang, half a file or a loss.

The fast test draws some cases of each command; ``make prove`` runs them all and prints a table.
"""

import time
import zlib
from random import Random

import pytest
from fault_runner import VERDICTS, input_cases, kill_cases, output_cases, run_cases
from fault_world import COMMANDS, build_world, embedtrain

DRAWN = 5
"""Cases of each command in the fast test."""


@pytest.fixture(scope="session")
def world(bert, late_interaction, pairs, beir, forked_reloads, tmp_path_factory):
    del forked_reloads
    folder = tmp_path_factory.mktemp("world")
    return build_world(folder, bert, late_interaction, pairs, beir)


def run(command, world, tmp_path, draw, record_property):
    cases = [*input_cases(command, world), *output_cases(command), *kill_cases(command)]
    seconds = time_of(command, world, tmp_path) if draw is None else 1.0
    if draw is not None:
        cases = Random(zlib.crc32(command.name.encode())).sample(cases, draw)
    counts, bad = run_cases(cases, world, tmp_path, seconds)
    record_property("faults", [command.name, *(counts[verdict] for verdict in VERDICTS)])
    assert not bad, "\n\n".join(bad)


def time_of(command, world, tmp_path):
    """How long the command takes where nothing is wrong; it must work, or the matrix shows nothing."""
    import shutil

    folder = tmp_path / "undisturbed"
    shutil.copytree(world, folder)
    start = time.monotonic()
    code, _, said = embedtrain(command.words.split(), folder)
    assert code == 0, said
    return time.monotonic() - start


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_some_faults_are_handled(command, world, tmp_path, record_property):
    run(command, world, tmp_path, DRAWN, record_property)


@pytest.mark.prove
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_fault_is_handled(command, world, tmp_path, record_property):
    run(command, world, tmp_path, None, record_property)
