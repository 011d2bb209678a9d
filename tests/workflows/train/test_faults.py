"""Ranks that are killed, stopped or fail, disks that fill and clocks that jump: a run goes on exactly.

The kills are drawn anew for each attempt; EMBEDTRAIN_KILLS=20 repeats them.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forks import embedtrain
from places import SCRIPTS
from safetensors.torch import load_file
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

sys.path.insert(0, str(SCRIPTS))
from distributed_cases import on_ranks
from rank_toys import exported_weights

from embedtrain.errors import UserError
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training import callbacks
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.training.module import RetrievalModule
from embedtrain.training.ranks.launcher import RankDied
from embedtrain.workflows import train as workflow

KILLS = int(os.environ.get("EMBEDTRAIN_KILLS", "1"))
pytestmark = pytest.mark.usefixtures("forked")
SHORT = ["trainer.steps=6", "trainer.checkpoint_every=2", "trainer.devices=2"]


def begin(recipe: Path, folder: Path, *overrides: str) -> Path:
    """Make the run folder; the ranks go on with it."""
    workflow._begin(load_recipe(recipe, [*SHORT, *overrides]), folder)
    return folder


def go_on(folder: Path, fault=lambda: None) -> None:
    fault()
    workflow.resume(folder)


def assert_same(folder: Path, other: Path) -> None:
    ours, theirs = exported_weights(folder), exported_weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert (folder / "metrics.csv").read_text() == (other / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def unbroken(recipe, tmp_path_factory):
    """What two ranks train when nothing happens, with dropout."""
    folder = begin(recipe, tmp_path_factory.mktemp("unbroken") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedtrain.release.export.verify", lambda *_: None)
        on_ranks(2, go_on, folder)
    return folder


def kill_at(rank: int, step: int, moment: str) -> None:
    """Let one rank die: before a loss, before the optimizer's step or while a checkpoint is written."""

    def die(trainer) -> None:
        if int(os.environ["RANK"]) == rank and trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    of_batch, save = RetrievalModule.loss, os.fsync
    if moment == "loss":
        RetrievalModule.loss = lambda self, batch: (die(self.trainer), of_batch(self, batch))[1]
    elif moment == "backward":
        RetrievalModule.on_after_backward = lambda self: die(self.trainer)
    else:
        writes = []

        def fsync(number: int) -> None:
            writes.append(number)
            if len(writes) > step // 2:
                os.kill(os.getpid(), signal.SIGKILL)
            save(number)

        os.fsync = fsync


@pytest.mark.parametrize("attempt", range(KILLS))
def test_a_killed_rank_ends_all_and_the_run_resumes_to_the_same_bits(
    attempt, recipe, unbroken, tmp_path
):
    draw = random.Random(attempt)
    moment = draw.choice(["loss", "backward", "checkpoint"])
    rank, step = draw.randrange(2), draw.randrange(6)
    folder = begin(recipe, tmp_path / "run")
    with pytest.raises(ProcessExitedException, match="SIGKILL") as caught:
        on_ranks(2, go_on, folder, lambda: kill_at(rank, step, moment))
    assert caught.value.error_index == (0 if moment == "checkpoint" else rank)
    assert not list_checkpoints(folder / "checkpoints") or step >= 2
    on_ranks(2, go_on, folder)
    assert_same(folder, unbroken)


def stop_at(rank: int, step: int) -> None:
    of_batch = RetrievalModule.loss

    def loss(self, batch):
        if int(os.environ["RANK"]) == rank and self.trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return of_batch(self, batch)

    RetrievalModule.loss = loss


def test_sigterm_to_one_rank_lets_all_save_the_same_step_and_end(recipe, unbroken, tmp_path):
    folder = begin(recipe, tmp_path / "run")
    with pytest.raises(ProcessRaisedException, match="stopped at step 4 of 6"):
        on_ranks(2, go_on, folder, lambda: stop_at(1, 3))
    names = [path.name for path in list_checkpoints(folder / "checkpoints")]
    assert names == ["step-00000002.ckpt", "step-00000004.ckpt"]
    on_ranks(2, go_on, folder)
    assert_same(folder, unbroken)


def spoil_at(rank: int, step: int) -> None:
    of_batch = RetrievalModule.loss

    def loss(self, batch):
        value = of_batch(self, batch)
        if int(os.environ["RANK"]) == rank and self.trainer.global_step == step:
            return value * float("nan")
        return value

    RetrievalModule.loss = loss


def test_a_loss_that_is_not_finite_stops_every_rank_and_keeps_the_batch(recipe, unbroken, tmp_path):
    folder = begin(recipe, tmp_path / "run")
    with pytest.raises(ProcessRaisedException, match=r"has a loss that is not finite"):
        on_ranks(2, go_on, folder, lambda: spoil_at(1, 3))
    kept = load_file(folder / "bad-batch-step-00000003-rank-1.safetensors")
    assert {"queries.ids", "documents.lengths", "relevance.positives"} <= kept.keys()
    names = [path.name for path in list_checkpoints(folder / "checkpoints")]
    assert names == ["step-00000002.ckpt"]  # none with the weights that it spoilt
    on_ranks(2, go_on, folder)
    assert_same(folder, unbroken)


def alone(recipe: Path, *overrides: str):
    return load_recipe(recipe, [*SHORT[:2], *overrides])


def test_a_full_disk_stops_the_run_and_leaves_the_checkpoint_before_it(recipe, tmp_path):
    workflow.train(alone(recipe), tmp_path / "unbroken")
    folder = tmp_path / "run"
    workflow._begin(alone(recipe), folder)
    save = callbacks.Checkpoints.save
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(self, trainer):
        if trainer.global_step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        save(self, trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Checkpoints, "save", fill_disk)
        try:
            with pytest.raises(UserError, match=r"cannot be written .*--resume"):
                workflow.resume(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-00000002.ckpt"]
    workflow.resume(folder)
    assert_same(folder, tmp_path / "unbroken")


def test_a_flipped_bit_is_found_and_the_checkpoint_before_it_used(recipe, tmp_path, caplog):
    workflow.train(alone(recipe), tmp_path / "run")
    before, newest = list_checkpoints(tmp_path / "run" / "checkpoints")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    expected = exported_weights(tmp_path / "run")
    workflow.resume(tmp_path / "run")
    assert f"{newest} is damaged" in caplog.text
    assert "using the one before it" in caplog.text
    assert newest.with_suffix(".damaged").read_bytes() == content
    assert all(
        torch.equal(v, expected[name]) for name, v in exported_weights(tmp_path / "run").items()
    )
    for path in (before, newest):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="holds damaged checkpoints only"):
        workflow.resume(tmp_path / "run")


def test_jumps_of_the_clock_change_nothing(recipe, tmp_path, monkeypatch):
    workflow.train(alone(recipe), tmp_path / "steady")
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(-1e9, 4e9))
    workflow.train(alone(recipe), tmp_path / "jumping")
    workflow.resume(tmp_path / "jumping")
    assert_same(tmp_path / "jumping", tmp_path / "steady")


def test_the_command_line_ends_with_one_line_when_a_rank_is_killed(recipe, tmp_path, monkeypatch):
    def die(*_: object) -> None:
        raise RankDied("rank 1 was killed by SIGKILL; the other ranks were ended")

    monkeypatch.setattr("embedtrain.workflows.launch.launch", die)
    done = embedtrain(["train", recipe, *SHORT, "--output", tmp_path / "run"])
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "error: rank 1 was killed by SIGKILL; the other ranks were ended"


@pytest.mark.prove
def test_the_command_line_starts_ranks_and_says_how_to_go_on_when_one_is_killed(recipe, tmp_path):
    folder = tmp_path / "run"
    arguments = ["train", str(recipe), *SHORT, "trainer.steps=5000", "--output", str(folder)]
    command = [sys.executable, "-m", "embedtrain", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as started:
        deadline = time.monotonic() + 240
        while not list_checkpoints(folder / "checkpoints") and time.monotonic() < deadline:
            time.sleep(0.02)
        children = subprocess.run(
            ["ps", "--ppid", str(started.pid), "-o", "pid="],
            capture_output=True,
            text=True,
            check=True,
        )
        os.kill(int(children.stdout.split()[1]), signal.SIGKILL)
        _, errors = started.communicate(timeout=240)
    assert started.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last == (
        "error: rank 1 was killed by SIGKILL after 'Training 5,000 steps of 8 queries'; the other ranks were ended. "
        f"Continue from the last checkpoint with: embedtrain train --resume {folder}"
    )
