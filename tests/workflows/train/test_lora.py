"""Adapters from the recipe to the exported model: small checkpoints, exact resume, plain exports."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel

from embedtrain.recipe.retrieval import load_recipe
from embedtrain.resources import resource
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.workflows.train import resume, train

LORA = [
    "model.lora={rank: 2, dropout: 0.1}",
    "model.attention=bidirectional",
    "model.pooling=mean",
    "model.learn_temperature=null",
    "trainer.steps=8",
]


@pytest.fixture(scope="module")
def run(recipe, llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "run"
    return train(load_recipe(recipe, [*LORA, f"model.backbone={llama}"]), folder).path


def test_checkpoints_hold_the_adapters_alone(run):
    state = torch.load(list_checkpoints(run / "checkpoints")[-1], weights_only=True)
    assert state["state_dict"]
    assert all("lora_" in name for name in state["state_dict"])


# peft 0.21 asks transformers 5.23 for a name that has a new one.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_exported_model_is_backbone_plus_adapter(run, llama):
    base = AutoModel.from_pretrained(llama, dtype=torch.float32)
    base.config.is_causal = False
    both = PeftModel.from_pretrained(base, run / "adapter").eval()
    exported = AutoModel.from_pretrained(run / "model", dtype=torch.float32).eval()
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        found, expected = (m(input_ids=ids).last_hidden_state for m in (exported, both))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_resumed_run_ends_with_the_same_weights(run, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run, again)
    list_checkpoints(again / "checkpoints")[-1].unlink()
    shutil.rmtree(again / "model")
    resume(again)
    ours, theirs = (load_file(p / "model" / "model.safetensors") for p in (again, run))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_decoder_learns_to_look_both_ways_and_then_to_retrieve(corpus, recipe, llama, tmp_path):
    mntp = load_recipe(
        resource("recipes") / "llm" / "mntp.yaml",
        [
            f"data.sources=[{{path: {corpus}}}]",
            "data.length=24",
            f"model.backbone={llama}",
            "model.mask_token='[UNK]'",
            "model.lora={rank: 2}",
            "trainer={steps: 4, batch_size: 8, learning_rate: 1.0e-3, log_every: 1}",
            "validation=null",
        ],
    )
    first = train(mntp, tmp_path / "mntp")
    assert json.loads((first.model / "config.json").read_text())["is_causal"] is False
    assert (first.adapter / "adapter_model.safetensors").is_file()
    overrides = [*LORA, f"model.backbone={first.model}", "model.attention=null"]
    second = train(load_recipe(recipe, overrides), tmp_path / "run")
    assert json.loads((second.model / "config.json").read_text())["is_causal"] is False
