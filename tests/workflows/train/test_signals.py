"""A signal ends a command in good order, with one line and an exit code that says which, and nothing is lost."""

import os
import signal
import sys
import time

import pytest
import torch
from forks import embedtrain, signal_on_call
from places import SCRIPTS
from rank_toys import exported_weights

sys.path.insert(0, str(SCRIPTS))
from distributed_cases import on_ranks

from embedtrain.errors import Interrupted, UserError
from embedtrain.mining.miner import Miner
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.stopping import listening
from embedtrain.training import validation
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.training.module import RetrievalModule
from embedtrain.workflows import score as scoring
from embedtrain.workflows.encode import shards
from embedtrain.workflows.train import resume, train

HEARD = "stopping after this step; again to stop at once"
SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
}  # fmt: skip
"""Of which Lightning would make two processes, and handlers of its own."""
pytestmark = pytest.mark.usefixtures("forked")


def steps_of(folder):
    return [int(path.stem[5:]) for path in list_checkpoints(folder / "checkpoints")]


def last_line(done):
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


def stop_on_call(owner, name, call, number=signal.SIGTERM, seconds=5):
    """Send this process a signal, and wait for what it brings."""
    original, calls = getattr(owner, name), []

    def counted(*arguments, **settings):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
            time.sleep(seconds)
        return original(*arguments, **settings)

    setattr(owner, name, counted)


@pytest.fixture(scope="module")
def validated(recipe, beir, tmp_path_factory):
    """A run that validates, undisturbed, and the overrides that make it."""
    overrides = ["trainer.steps=6", f"validation={{path: {beir}, split: dev, every_steps: 3}}"]
    folder = tmp_path_factory.mktemp("validated") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedtrain.release.export.verify", lambda *_: None)
        train(load_recipe(recipe, overrides), folder)
    return folder, overrides


def assert_same(folder, other):
    ours, theirs = exported_weights(folder), exported_weights(other)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert (folder / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    best = [torch.load(run / "checkpoints/best.ckpt")["global_step"] for run in (folder, other)]
    assert best[0] == best[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_a_signal_ends_training_at_a_checkpoint_also_under_slurm(recipe, tmp_path, number, code):
    def before():
        os.environ.update(SLURM)
        signal_on_call(RetrievalModule, "training_step", 2, number)

    done = embedtrain(["train", recipe, "--output", tmp_path / "run"], before=before)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines().count(HEARD) == 1
    assert last_line(done) == (
        f"stopped at step 2 of 12 by {number.name}; "
        f"continue with: embedtrain train --resume {tmp_path / 'run'}"
    )
    assert steps_of(tmp_path / "run") == [2]


def test_a_signal_in_the_last_step_ends_the_run_there_and_resuming_exports(recipe, tmp_path):
    short = ["trainer.steps=2", "--output", tmp_path / "run"]
    hook = lambda: signal_on_call(RetrievalModule, "training_step", 2, signal.SIGTERM)  # noqa: E731
    done = embedtrain(["train", recipe, *short], before=hook)
    assert done.returncode == 143
    assert "stopped at step 2 of 2 by SIGTERM" in last_line(done)
    assert not (tmp_path / "run/model").exists()
    resume(tmp_path / "run")
    assert (tmp_path / "run/model").is_dir()


def test_a_second_signal_ends_training_at_once(recipe, tmp_path):
    def before():
        original = RetrievalModule.training_step

        def step(self, *arguments):
            if self.trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.6)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            return original(self, *arguments)

        RetrievalModule.training_step = step

    done = embedtrain(["train", recipe, "--output", tmp_path / "run"], before=before)
    assert done.returncode == 130, done.stderr
    assert last_line(done).startswith("stopped by SIGINT; continue with: embedtrain train --resume")
    assert steps_of(tmp_path / "run") == [4]


def best_step(run):
    """The step whose weights are the best so far; None where nothing was measured yet."""
    best = run / "checkpoints/best.ckpt"
    return torch.load(best)["global_step"] if best.exists() else None


@pytest.mark.parametrize("during", ["start", "step", "validation"])
def test_a_validation_waits_until_the_run_goes_on(recipe, validated, tmp_path, during):
    undisturbed, overrides = validated

    def before():
        if during == "step":
            signal_on_call(RetrievalModule, "training_step", 3, signal.SIGTERM)
        else:
            stop_on_call(validation, "rank_task", 1 if during == "start" else 2)

    began = time.monotonic()
    done = embedtrain(["train", recipe, *overrides, "--output", tmp_path / "run"], before=before)
    assert done.returncode == 143, done.stderr
    assert time.monotonic() - began < 30
    step, best = (0, None) if during == "start" else (3, 0)
    assert f"stopped at step {step} of 6 by SIGTERM" in last_line(done)
    assert steps_of(tmp_path / "run") == ([3] if step else [])
    assert best_step(tmp_path / "run") == best, "the start was measured, step 3 was not"
    resume(tmp_path / "run")
    assert_same(tmp_path / "run", undisturbed)


def stop_one_rank(recipe, overrides, folder):
    """Train on a rank, the second of which hears a signal in step 3; note what it measured."""
    measured, rank = [], os.environ["RANK"]
    if rank == "1":
        stop_on_call(RetrievalModule, "training_step", 3, seconds=1)
    rank_task = validation.rank_task
    validation.rank_task = lambda *given: measured.append(1) or rank_task(*given)
    with pytest.raises(Interrupted, match="stopped at step 3 of 6 by SIGTERM"), listening():
        train(load_recipe(recipe, [*overrides, "trainer.devices=2"]), folder)
    (folder.parent / f"measured-{rank}").write_text(str(len(measured)))


def test_no_rank_measures_once_a_signal_has_come_to_one(recipe, validated, tmp_path):
    undisturbed, overrides = validated
    on_ranks(2, stop_one_rank, recipe, overrides, tmp_path / "run")
    assert [(tmp_path / f"measured-{rank}").read_text() for rank in range(2)] == ["1", "0"], (
        "the start only, which the first rank searches"
    )
    assert steps_of(tmp_path / "run") == [3]
    on_ranks(2, resume, tmp_path / "run")
    rows = [(run / "metrics.csv").read_text() for run in (tmp_path / "run", undisturbed)]
    assert [row.partition(",")[0] for row in rows[0].splitlines()] == [
        row.partition(",")[0] for row in rows[1].splitlines()
    ]
    assert len(list_checkpoints(tmp_path / "run/checkpoints")) == 2
    assert (tmp_path / "run/checkpoints/best.ckpt").exists()


def test_a_signal_before_training_ends_the_command_where_it_is(recipe, tmp_path):
    from embedtrain.workflows import train as workflow

    for name, way in (("prepare", None), ("plan_retrieval", "continue with: embedtrain train")):
        done = embedtrain(
            ["train", recipe, "--output", tmp_path / name],
            before=lambda name=name: stop_on_call(workflow, name, 1),
        )
        assert done.returncode == 143, done.stderr
        expected = "stopped by SIGTERM" + (f"; {way} --resume {tmp_path / name}" if way else "")
        assert last_line(done) == expected
        assert (tmp_path / name).exists() == bool(way)
    with pytest.raises(UserError, match=r"no run was begun there. Begin with `embedtrain train"):
        resume(tmp_path / "prepare")


@pytest.mark.parametrize("command", ["mine", "encode", "score"])
def test_what_can_go_on_says_so(command, bert, beir, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.workflows.mine.QUERIES_PER_PART", 3)
    monkeypatch.setattr(scoring, "EXAMPLES_PER_BLOCK", 8)
    output = tmp_path / ("out.jsonl" if command == "score" else "out")
    arguments, target = {
        "mine": (["mine", bert, "--data", beir, "--split", "test"], (Miner, "mine")),
        "encode": (["encode", bert, beir / "corpus.jsonl"], (shards, "_write_shard")),
        "score": (["score", bert, "--data", pairs], (scoring, "_lines")),
    }[command]
    arguments = [*arguments, "--output", output]
    stopped = embedtrain(arguments, before=lambda: stop_on_call(*target, 1))
    assert stopped.returncode == 143, stopped.stderr
    assert last_line(stopped) == "stopped by SIGTERM; the same command goes on with what is done"
    done = embedtrain(arguments)
    assert done.returncode == 0, done.stderr
