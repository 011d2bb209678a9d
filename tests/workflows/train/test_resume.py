"""A run that was killed or stopped must end with the very weights of one that was not."""

import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forks import embedtrain, signal_on_call
from places import SCRIPTS
from safetensors.torch import load_file

from embedtrain.errors import UserError
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.recipe.run_files import read_summary
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.training import callbacks
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.training.module import RetrievalModule
from embedtrain.workflows.train import resume, train


def run_and_signal(recipe: Path, output: Path, step: int, number: int, *overrides: str) -> int:
    done = embedtrain(
        ["train", recipe, "--output", output, *overrides],
        before=lambda: signal_on_call(RetrievalModule, "training_step", step + 1, number),
    )
    return done.returncode


@pytest.fixture(scope="module", autouse=True)
def trusted_exports():
    """Reloading each export in a fresh process takes long and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedtrain.release.export.verify", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def unbroken(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    train(load_recipe(recipe), folder)
    return folder


def assert_same_weights(run: Path, other: Path) -> None:
    ours, theirs = (load_file(p / "model" / "model.safetensors") for p in (run, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    states = [torch.load(list_checkpoints(p / "checkpoints")[-1]) for p in (run, other)]
    assert torch.equal(*(state["state_dict"]["model.log_temperature"] for state in states))


def test_a_limit_of_time_counts_what_came_before_a_stop_and_ends_with_a_whole_step_until_there_is_more(
    recipe, unbroken, tmp_path, monkeypatch
):
    steps, step = [], RetrievalModule.training_step
    monkeypatch.setattr(
        RetrievalModule, "training_step", lambda *given: [steps.append(1), step(*given)][1]
    )
    clock = SimpleNamespace(monotonic=lambda: float(len(steps)))  # a step takes a second
    monkeypatch.setattr(callbacks, "time", clock)
    limit = "trainer.max_seconds=7"
    whole = train(load_recipe(recipe, [limit]), tmp_path / "whole")
    assert list_checkpoints(whole.checkpoints)[-1].name == "step-00000007.ckpt"
    assert read_summary(whole)["out_of_time"] == {"step": 7, "of": 12}
    code = run_and_signal(recipe, tmp_path / "run", 4, signal.SIGTERM, limit)
    assert code == 128 + signal.SIGTERM
    assert list_checkpoints(tmp_path / "run/checkpoints")[-1].name == "step-00000005.ckpt"
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", whole.path)
    done = len(steps)
    for same in ([], [limit], ["trainer.max_seconds=6"]):
        resume(tmp_path / "run", same)
    assert len(steps) == done
    resume(tmp_path / "run", ["trainer.max_seconds=9"])
    assert read_summary(RunFolder(tmp_path / "run"))["out_of_time"] == {"step": 9, "of": 12}
    resume(tmp_path / "run", ["trainer.max_seconds=null"])
    assert "out_of_time" not in read_summary(RunFolder(tmp_path / "run"))
    assert_same_weights(tmp_path / "run", unbroken)


def test_training_changes_the_weights_and_logs_every_second_step(unbroken):
    lines = (unbroken / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "2", "4", "6", "8", "10"]
    kept = [path.name for path in list_checkpoints(unbroken / "checkpoints")]
    assert kept == ["step-00000008.ckpt", "step-00000012.ckpt"]
    first, last = (torch.load(unbroken / "checkpoints" / name)["state_dict"] for name in kept)
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_a_killed_run_resumes_to_the_same_bits(recipe, unbroken, tmp_path):
    code = run_and_signal(recipe, tmp_path / "run", 6, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert [p.name for p in list_checkpoints(tmp_path / "run/checkpoints")] == [
        "step-00000004.ckpt"
    ]
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", unbroken)
    assert (tmp_path / "run/metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()


def test_processes_that_build_batches_change_no_bit_also_of_a_run_that_goes_on(
    recipe, unbroken, tmp_path
):
    built_ahead = ["trainer.workers=2", "trainer.prefetch=1"]
    code = run_and_signal(recipe, tmp_path / "run", 5, signal.SIGTERM, *built_ahead)
    assert code == 128 + signal.SIGTERM
    resume(tmp_path / "run", ["trainer.prefetch=3", "trainer.workers=1"])
    assert_same_weights(tmp_path / "run", unbroken)
    assert (tmp_path / "run/metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()


def test_ctrl_c_keeps_a_checkpoint_says_how_to_go_on_and_exits_with_130(recipe, unbroken, tmp_path):
    assert run_and_signal(recipe, tmp_path / "run", 5, signal.SIGINT) == 130
    assert [p.name for p in list_checkpoints(tmp_path / "run/checkpoints")] == [
        "step-00000004.ckpt",
        "step-00000006.ckpt",
    ]
    assert not (tmp_path / "run/model").exists()
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", unbroken)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(recipe, unbroken, tmp_path):
    run_and_signal(recipe, tmp_path / "run", 10, signal.SIGKILL)
    newest = list_checkpoints(tmp_path / "run/checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", unbroken)


def test_rematerialised_training_ends_with_the_same_weights(recipe, tmp_path):
    """Without dropout: chunk by chunk, dropout would draw other numbers."""
    for name, overrides in {
        "plain": ["trainer.chunk_tokens=100000"],
        "chunked": ["trainer.chunk_tokens=40", "trainer.rematerialize=true"],
    }.items():
        train(load_recipe(recipe, ["model.dropout=0.0", *overrides]), tmp_path / name)
    ours, theirs = (
        load_file(tmp_path / name / "model/model.safetensors") for name in ("plain", "chunked")
    )
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=2e-4), name


def test_bf16_trains_and_resumes_to_the_same_bits(recipe, tmp_path):
    overrides = ["trainer.precision=bf16", "trainer.steps=6"]
    train(load_recipe(recipe, overrides), tmp_path / "unbroken")
    assert (
        run_and_signal(recipe, tmp_path / "run", 5, signal.SIGKILL, *overrides) == -signal.SIGKILL
    )
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", tmp_path / "unbroken")


def test_two_sources_validation_and_a_projection_resume_to_the_same_bits(
    recipe, pairs, beir, tmp_path
):
    overrides = [
        f"data.sources=[{{path: {pairs}, weight: 2.0}}, {{path: {pairs}, limit: 20}}]",
        "data.num_negatives=1",
        "model.projection=8",
        f"validation={{path: {beir}, split: dev, every_steps: 3}}",
    ]
    train(load_recipe(recipe, overrides), tmp_path / "unbroken")
    assert (
        run_and_signal(recipe, tmp_path / "run", 7, signal.SIGKILL, *overrides) == -signal.SIGKILL
    )
    resume(tmp_path / "run")
    assert_same_weights(tmp_path / "run", tmp_path / "unbroken")


def test_a_run_is_not_continued_on_other_rows(recipe, pairs, tmp_path):
    data = tmp_path / "pairs.jsonl"
    lines = pairs.read_text().splitlines(keepends=True)
    data.write_text("".join(lines))
    train(load_recipe(recipe, [f"data.sources=[{{path: {data}}}]"]), tmp_path / "run")
    data.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="was started on other training data"):
        resume(tmp_path / "run")


def test_resuming_waits_for_nothing_when_the_run_is_complete(unbroken):
    before = (unbroken / "checkpoints").stat().st_mtime_ns
    start = time.monotonic()
    resume(unbroken)
    assert (unbroken / "checkpoints").stat().st_mtime_ns == before
    assert time.monotonic() - start < 120


def test_a_comparison_goes_on_with_what_broke_off_unless_its_settings_changed(
    recipe, unbroken, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from trained_runs import train_once

    run_and_signal(recipe, tmp_path / "run", 6, signal.SIGKILL)
    with pytest.raises(UserError, match="begun with other settings"):
        train_once(load_recipe(recipe, ["trainer.steps=13"]), tmp_path / "run")
    assert train_once(load_recipe(recipe), tmp_path / "run") == tmp_path / "run" / "model"
    assert_same_weights(tmp_path / "run", unbroken)
    before = (tmp_path / "run/metrics.csv").stat().st_mtime_ns
    train_once(load_recipe(recipe), tmp_path / "run")
    assert (tmp_path / "run/metrics.csv").stat().st_mtime_ns == before
    train_once(load_recipe(recipe), tmp_path / "new")
    assert_same_weights(tmp_path / "new", unbroken)
