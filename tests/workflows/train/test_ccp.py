"""Contrast with a memory bank, from the recipe to the exported model."""

import shutil
import sys

import pytest
import torch
from places import SCRIPTS
from safetensors.torch import load_file

sys.path.insert(0, str(SCRIPTS))
from distributed_cases import on_ranks
from rank_toys import exported_weights

from embedtrain.errors import UserError
from embedtrain.models.build import load_dense
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.training.ranks.strategies import check_strategy
from embedtrain.training.settings import TrainerConfig
from embedtrain.workflows.train import resume, train

pytestmark = pytest.mark.usefixtures("forked")
CCP = [
    "objective={name: ccp, bank_size: 24}",
    "model.contrast_head={dim: 8}",
    "data.num_negatives=0",
]


def train_on_rank(recipe, overrides, folder) -> None:
    train(load_recipe(recipe, overrides), folder)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedtrain.release.export.verify", lambda *_: None)
        folder = tmp_path_factory.mktemp("ccp") / "run"
        train(load_recipe(recipe, CCP), folder)
    return folder


def test_a_run_goes_on_with_its_bank_and_running_statistics_and_exports_neither(run, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run, again)
    shutil.rmtree(again / "model")
    list_checkpoints(again / "checkpoints")[-1].unlink()
    resume(again)
    ours, theirs = (load_file(one / "model" / "model.safetensors") for one in (again, run))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    kept, other = (torch.load(list_checkpoints(one / "checkpoints")[-1]) for one in (again, run))
    assert torch.equal(kept["bank"]["vectors"][0], other["bank"]["vectors"][0])
    assert kept["bank"]["pushed"] == other["bank"]["pushed"] == [6 * (8 + 8)]
    mean = "model.contrast_head.running_mean"
    assert torch.equal(kept["state_dict"][mean], other["state_dict"][mean])
    assert kept["state_dict"][mean].abs().max() > 0
    assert load_dense(str(run / "model")).contrast_head is None
    assert not any("contrast" in name for name in ours)


def test_two_ranks_train_the_model_of_one(recipe, tmp_path):
    short = [*CCP, "trainer.steps=4", "trainer.checkpoint_every=2", "model.dropout=0.0"]
    train(load_recipe(recipe, short), tmp_path / "alone")
    on_ranks(2, train_on_rank, recipe, [*short, "trainer.devices=2"], tmp_path / "ranks")
    ours, theirs = (exported_weights(tmp_path / name) for name in ("ranks", "alone"))
    error = sum(float((value - theirs[name]).square().sum()) for name, value in ours.items())
    norm = sum(float(value.square().sum()) for value in theirs.values())
    assert (error / norm) ** 0.5 < 1e-4


@pytest.mark.parametrize(
    "overrides", [CCP[:1], CCP[1:], ["objective={name: sum, objectives: [{name: ccp}]}", CCP[1]]]
)
def test_the_objective_and_the_head_need_each_other(recipe, overrides):
    with pytest.raises(UserError, match="need each other"):
        load_recipe(recipe, overrides)


def test_a_strategy_that_shards_weights_is_refused():
    config = TrainerConfig(steps=1, devices=2, strategy="fsdp")
    with pytest.raises(UserError, match=r"does not fit model\.contrast_head"):
        check_strategy(config, pretrains=False, has_contrast_head=True)
