"""Whole runs on several ranks, from the recipe to the exported model."""

import sys
from pathlib import Path

import pytest
from places import SCRIPTS
from torch.multiprocessing import ProcessRaisedException

sys.path.insert(0, str(SCRIPTS))
from distributed_cases import on_ranks
from rank_toys import exported_weights

from embedtrain.errors import UserError
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.resources import resource
from embedtrain.workflows.pipeline import load_pipeline, run_pipeline
from embedtrain.workflows.train import resume, train

pytestmark = pytest.mark.usefixtures("forked")
SHORT = ["trainer.steps=4", "trainer.checkpoint_every=2", "model.dropout=0.0"]


def assert_close(folder: Path, other: Path) -> None:
    ours, theirs = exported_weights(folder), exported_weights(other)
    assert ours.keys() == theirs.keys()
    error = sum(float((value - theirs[name]).square().sum()) for name, value in ours.items())
    norm = sum(float(value.square().sum()) for value in theirs.values())
    assert (error / norm) ** 0.5 < 1e-4


def train_on_rank(recipe: Path, overrides: list[str], folder: Path) -> None:
    train(load_recipe(recipe, overrides), folder)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_torchruns_ranks_validate_measure_and_export_once(strategy, recipe, beir, tmp_path):
    tasks = [
        f"evaluation={{path: {beir}, split: test}}",
        f"validation={{path: {beir}, split: dev, every_steps: 2}}",
    ]
    train(load_recipe(recipe, [*SHORT, *tasks]), tmp_path / "alone")
    shared = [*SHORT, *tasks, "trainer.devices=2", f"trainer.strategy={strategy}"]
    on_ranks(2, train_on_rank, recipe, shared, tmp_path / "ranks")
    assert_close(tmp_path / "ranks", tmp_path / "alone")
    for name in ("evaluation.json", "before.json", "checkpoints/best.ckpt"):
        assert (tmp_path / "ranks" / name).is_file()


@pytest.mark.parametrize("name", ["retromae", "mexma"])
def test_pre_training_on_ranks_exports_the_encoder_of_one_process(smoke, pairs, name, tmp_path):
    short = ["trainer.steps=4", "model.architecture.dropout=0.0", "trainer.chunk_tokens=auto"]
    if name == "mexma":  # nearest vectors over both ranks
        parallel = f"data.sources=[{{path: {pairs}, column: query, translation: positive}}]"
        short += [parallel, "objective.koleo_weight=0.5"]
    train(smoke(name, *short), tmp_path / "alone")
    shared = smoke(name, *short, "trainer.devices=2")
    on_ranks(2, train, shared, tmp_path / "ranks")
    assert_close(tmp_path / "ranks", tmp_path / "alone")


def test_a_run_goes_on_with_other_devices_and_nothing_else_changed(recipe, tmp_path):
    folder = tmp_path / "run"
    train(load_recipe(recipe, SHORT), tmp_path / "alone")
    train(load_recipe(recipe, SHORT), folder)
    for path in (folder / "checkpoints" / "step-00000004.ckpt", folder / "model"):
        path.rename(tmp_path / f"kept-{path.name}")
    on_ranks(3, resume, folder, ["trainer.devices=3", "trainer.chunk_tokens=20"])
    assert_close(folder, tmp_path / "alone")
    with pytest.raises(UserError, match=r"cannot change what the run computes.*trainer.seed=1"):
        resume(folder, ["trainer.seed=1"])


def test_a_mistake_shows_on_the_first_rank(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(ProcessRaisedException, match="exists and is not empty"):
        on_ranks(2, train_on_rank, recipe, [*SHORT, "trainer.devices=2"], tmp_path / "run")


def test_stages_are_not_run_under_torchrun(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    path = resource("recipes") / "smoke" / "mine_then_train.yaml"
    with pytest.raises(UserError, match="cannot run a recipe of several stages"):
        run_pipeline(load_pipeline(path), tmp_path / "out")
