"""BitFit from the recipe to the export: of each kind of model the biases and the head are trained, and all is written."""

import json
import shutil

import pytest
import torch
from pair_toys import marked_rows, save_classifier
from rank_toys import exported_weights
from safetensors.torch import load_file

from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.workflows.train import resume, train

KINDS = {
    "dense": ["model.projection=8", "model.learn_temperature=null"],
    "late_interaction": ["model.kind=late_interaction", "model.dim=8", "model.learn_temperature=null"],
    "cross_encoder": [],
}  # fmt: skip
HEADS = {"dense": ("projection",), "late_interaction": ("heads",), "cross_encoder": ("head",)}


@pytest.fixture(scope="module", params=KINDS)
def trained(request, recipe, bert, tmp_path_factory):
    """The kind, the run, and the weights that it began with."""
    kind, folder = request.param, tmp_path_factory.mktemp("biases")
    asked = [
        *KINDS[kind], "model.train=biases", "trainer.steps=4", "trainer.checkpoint_every=2",
        "trainer.learning_rate=0.01",
    ]  # fmt: skip
    if kind == "cross_encoder":
        start = str(save_classifier(folder / "start", "bert"))
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in marked_rows(40, 0)))
        sections = {
            "data": {"sources": [{"path": str(rows)}]},
            "model": {"kind": kind, "backbone": start, "query_length": 8, "length": 32},
            "objective": {"name": "info_nce"},
            "trainer": {"batch_size": 8, "chunk_tokens": 90, "log_every": 2},
        }
        return kind, train(load_recipe(sections, asked), folder / "run").path, start
    return (
        kind,
        train(load_recipe(recipe, [*asked, f"model.backbone={bert}"]), folder / "run").path,
        bert,
    )


def test_the_biases_move_and_no_other_weight_of_the_backbone(trained):
    kind, run, start = trained
    before = load_file(f"{start}/model.safetensors")
    after = load_file(run / "model" / "model.safetensors")
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    unused = {name for name in before if name.startswith("pooler.")}
    head = {name for name in before if name.startswith(("bert.pooler.", "classifier."))}
    assert moved == {name for name in before if name.endswith(".bias")} - unused | head
    assert after.keys() == before.keys() - unused, "the export is whole"
    assert bool(head) == (kind == "cross_encoder")


def test_checkpoints_and_the_optimizer_hold_what_is_trained(trained):
    kind, run, _ = trained
    state = torch.load(list_checkpoints(run / "checkpoints")[-1], weights_only=True)
    names = {name.removeprefix("model.") for name in state["state_dict"]}
    assert any(name.startswith(HEADS[kind]) for name in names)
    assert all(name.endswith(".bias") or name.startswith(HEADS[kind]) for name in names)
    moments = state["optimizer_states"][0]["state"]
    sizes = sorted(one["exp_avg"].numel() for one in moments.values())
    assert sizes == sorted(value.numel() for value in state["state_dict"].values())


def test_a_resumed_run_ends_with_the_same_weights(trained, tmp_path):
    _, run, _ = trained
    again = tmp_path / "run"
    shutil.copytree(run, again)
    list_checkpoints(again / "checkpoints")[-1].unlink()
    shutil.rmtree(again / "model")
    resume(again)
    ours, theirs = exported_weights(again), exported_weights(run)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
