"""Each source trains its own adapter: the others do not move, whether one process trains or two."""

import json
import sys
from itertools import pairwise

import pytest
import torch
from places import SCRIPTS
from rank_toys import exported_weights

sys.path.insert(0, str(SCRIPTS))
from distributed_cases import on_ranks

from embedtrain.files import read_json
from embedtrain.models.backbone.files import read_weights
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.acting_adapters import ActingAdapters
from embedtrain.workflows.train import resume, train


def asked(pairs, *more):
    sources = ", ".join(f"{{path: {pairs}, adapter: {name}}}" for name in ("go", "python"))
    return [
        f"data.sources=[{sources}]", "model.lora={rank: 2, adapters: [go, python, idle]}", "model.dropout=0.0",
        "trainer.steps=8", "trainer.checkpoint_every=4", "trainer.weight_decay=0.1", "model.learn_temperature=null", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(recipe, pairs, tmp_path_factory):
    return train(load_recipe(recipe, asked(pairs)), tmp_path_factory.mktemp("adapters") / "run")


def adapter(run, name):
    return read_weights(run / "adapter" / name / "adapter_model.safetensors")


def test_adapters_of_sources_move_and_an_idle_one_does_not(run):
    for name in ("go", "python"):
        moved = [
            value.abs().max() > 0
            for label, value in adapter(run.path, name).items()
            if "lora_B" in label
        ]
        assert moved
        assert all(moved), name
    assert all(
        not value.any() for label, value in adapter(run.path, "idle").items() if "lora_B" in label
    )
    assert read_json(run.path / "adapter" / "go" / "adapter_config.json")["r"] == 2


def test_steps_of_one_source_leave_the_other_adapter_bit_for_bit(
    recipe, pairs, tmp_path, monkeypatch
):
    seen, forget = [], ActingAdapters.forget_idle

    def note(self):
        used = sorted(self._used)
        forget(self)
        adapters = self.adapters
        state = {
            name: [one.detach().clone() for one in adapters.parameters_of(name)]
            for name in adapters.names
        }
        seen.append((used, state))

    monkeypatch.setattr(ActingAdapters, "forget_idle", note)
    train(load_recipe(recipe, asked(pairs)), tmp_path / "run")
    assert {tuple(used) for used, _ in seen} == {("go",), ("python",)}
    for (used, before), (_, after) in pairwise(seen):  # a state is that before its step
        for name in before:
            same = all(torch.equal(x, y) for x, y in zip(before[name], after[name], strict=True))
            assert same == ([name] != used), (used, name)


def test_a_run_is_the_same_resumed_and_on_two_ranks(run, recipe, pairs, tmp_path):
    again = tmp_path / "ranks"
    shared = asked(pairs, "trainer.devices=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedtrain.release.export.verify", lambda *_: None)
        on_ranks(2, train, load_recipe(recipe, shared), again)
    for name in ("go", "python", "idle"):
        for label, value in adapter(run.path, name).items():
            torch.testing.assert_close(adapter(again, name)[label], value, rtol=1e-3, atol=1e-6)
    newest = sorted((run.path / "checkpoints").glob("step-*.ckpt"))[-1]
    expected = exported_weights(run.path)
    newest.unlink()
    (run.path / "model").rename(tmp_path / "kept")
    resume(run.path)
    assert all(
        torch.equal(value, expected[name]) for name, value in exported_weights(run.path).items()
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"data": {"sources": [{"path": "x", "adapter": "rust"}]}},
            "name the adapter 'rust', and model.lora.adapters are: go",
        ),
        ({"data": {"sources": [{"path": "x"}]}}, "name the adapter None"),
        ({"model": {"backbone": "x"}}, "model.lora.adapters are: none"),
        ({"trainer": {"steps": 1, "strategy": "fsdp"}}, "single or ddp"),
    ],
)
def test_sources_and_adapters_name_each_other(change, said):
    sections = {
        "data": {"sources": [{"path": "x", "adapter": "go"}]},
        "model": {"backbone": "x", "lora": {"adapters": ["go"]}},
        "trainer": {"steps": 1},
    }
    with pytest.raises(ValueError, match=said):
        load_recipe(json.loads(json.dumps(sections | change)))
