"""Mining while training: versions follow the steps, and a killed run ends with the very same weights."""

import json
import signal
from pathlib import Path

import pytest
import torch
from forks import embedtrain, signal_on_call
from safetensors.torch import load_file

from embedtrain.data.batches import BatchBuilder
from embedtrain.data.mixture import Mixture
from embedtrain.encoding.cache import model_key
from embedtrain.errors import UserError
from embedtrain.mining.miner import Miner
from embedtrain.mining.task import load_mining_task
from embedtrain.models.build import build_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.module import RetrievalModule
from embedtrain.workflows.refresh import RefreshedBatches
from embedtrain.workflows.train import resume, train

KILLS = {
    "inside a version": (RetrievalModule, "training_step", 7),
    "at a boundary, while mining": (Miner, "mine", 2),
}


@pytest.fixture(scope="module")
def recipe(bert_with_dropout, pairs, beir, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "refresh.yaml"
    path.write_text(
        f"""\
description: Tiny.
data: {{sources: [{{path: {pairs}}}], num_negatives: 2}}
model: {{backbone: {bert_with_dropout}, document: {{length: 16}}}}
refresh:
  path: {beir}
  split: test
  every_steps: 4
  mining: {{num_negatives: 3, rule: {{kind: margin, margin: 0.0001}}, sampling: {{kind: uniform}}}}
trainer: {{steps: 10, batch_size: 6, learning_rate: 1.0e-3, checkpoint_every: 4, log_every: 2}}
"""
    )
    return path


@pytest.fixture(scope="module")
def unbroken(recipe, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("unbroken") / "run"
    train(load_recipe(recipe), output)
    return output


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model/model.safetensors")


def manifest(run: Path, version: int) -> dict:
    return json.loads((run / f"negatives/v{version:04d}/manifest.json").read_text())


def test_each_version_is_mined_by_the_model_of_its_own_step(recipe, unbroken):
    versions = sorted(path.name for path in (unbroken / "negatives").glob("v*"))
    assert versions == ["v0001", "v0002"]
    path = unbroken / "checkpoints/step-00000008.ckpt"
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model = build_encoder(load_recipe(recipe).model)
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    assert manifest(unbroken, 2)["sources"][0]["model_hash"] == f"{model_key(model)} fp32"


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS.keys())
def test_a_killed_run_mines_and_learns_the_same(recipe, unbroken, tmp_path, kill):
    done = embedtrain(
        ["train", recipe, "--output", tmp_path / "run"], before=lambda: signal_on_call(*kill)
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    resume(tmp_path / "run")
    ours, theirs = weights(tmp_path / "run"), weights(unbroken)
    for tensor, value in theirs.items():
        assert torch.equal(ours[tensor], value), tensor
    for version in (1, 2):
        assert (
            manifest(tmp_path / "run", version)["sha256"] == manifest(unbroken, version)["sha256"]
        )


def test_a_run_whose_mined_rows_are_gone_is_not_continued(recipe, beir, tmp_path):
    loaded = load_recipe(recipe)
    batches = RefreshedBatches(
        loaded.refresh,
        build_encoder(loaded.model),
        load_mining_task(str(beir), "test"),
        tmp_path,
        rows=(Mixture([10], [1.0], batch_size=2, num_steps=9, seed=0), BatchBuilder([])),
        plan=lambda *_: pytest.fail("nothing to plan"),
        tokenize=lambda _: pytest.fail("nothing to read"),
    )
    with pytest.raises(UserError, match="cannot go on with the rows it was trained on"):
        batches(5)
