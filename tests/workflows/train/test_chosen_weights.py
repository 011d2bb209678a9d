"""A list of what is trained, from the recipe to the end of the run: checkpoints, resuming, ranks and the report."""

import shutil

import pytest
import torch
from rank_toys import exported_weights
from safetensors.torch import load_file

from embedtrain.cli.printing import print_run
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.recipe.run_files import read_summary
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.workflows.train import resume, train

ASKED = [
    "model.train=[layers.1]", "model.projection=8", "trainer.steps=4", "trainer.checkpoint_every=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """A run of the last layer, behind which stands a new projection that stays as it was drawn."""
    return train(load_recipe(recipe, ASKED), tmp_path_factory.mktemp("chosen") / "run")


def test_only_the_named_layer_moves_and_is_in_checkpoints(run, bert_with_dropout):
    before = load_file(f"{bert_with_dropout}/model.safetensors")
    after = load_file(run.model / "model.safetensors")
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("encoder.layer.1.")}
    state = torch.load(list_checkpoints(run.checkpoints)[-1], weights_only=True)["state_dict"]
    own = {name.removeprefix("model.") for name in state}
    assert own == {f"backbone.{name}" for name in moved} | {"log_temperature"}


def test_the_end_of_the_run_says_how_far_each_part_moved(run, capsys):
    rows = {row["part"]: row for row in read_summary(run)["movements"]}
    assert 0 < rows["layers.1"]["moved"] < 0.5
    assert [name for name in rows if not rows[name]["num_trained"]] == ["embeddings", "layers.0"]
    print_run(run.path)
    printed = capsys.readouterr().out
    assert f"{rows['layers.1']['moved']:.2%}" in printed


def test_a_resumed_run_ends_with_the_same_weights(run, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run.path, again)
    list_checkpoints(again / "checkpoints")[-1].unlink()
    shutil.rmtree(again / "model")
    resume(again)
    ours, theirs = exported_weights(again), exported_weights(run.path)
    assert len(ours) == len(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
