import pytest
import torch

from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows import doctor
from embedtrain.workflows.doctor import diagnose


@pytest.fixture
def recipe(tmp_path, bert_with_dropout, pairs):
    path = tmp_path / "r.yaml"
    path.write_text(
        f"""\
description: Tiny.
data: {{sources: [{{path: {pairs}}}]}}
model: {{backbone: {bert_with_dropout}, learn_temperature: 0.05}}
trainer: {{steps: 2, batch_size: 32, chunk_tokens: 64, rematerialize: true}}
"""
    )
    return path


def test_the_configured_path_is_exact_and_every_group_is_shown(recipe):
    diagnosis = diagnose(load_recipe(recipe))
    assert diagnosis.healthy
    names = [group.name for group in diagnosis.groups]
    assert names == ["embeddings", "encoder.layer.0", "encoder.layer.1", "log_temperature"]
    assert all(group.norm > 0 for group in diagnosis.groups)
    assert diagnosis.loss == pytest.approx(diagnosis.plain_loss, rel=1e-5)


def test_bf16_stays_within_its_own_bound_and_differs_from_float32(recipe):
    diagnosis = diagnose(load_recipe(recipe, ["trainer.precision=bf16"]))
    assert diagnosis.healthy
    assert max(group.relative_error for group in diagnosis.groups) > 1e-4


def test_a_wrong_gradient_is_found(recipe, monkeypatch):
    right = DenseEncoder._packed_states

    def wrong(self, texts, *settings, **rehearsed):
        states = right(self, texts, *settings, **rehearsed)
        return states * 1.001 - 0.001 * states.detach()

    monkeypatch.setattr(DenseEncoder, "_packed_states", wrong)
    assert not diagnose(load_recipe(recipe)).healthy


def test_a_nan_is_not_healthy():
    groups = [doctor.GroupError("a", float("nan"), 1.0)]
    assert not doctor.Diagnosis(1.0, float("nan"), groups, 1e-4).healthy


def test_a_parameter_without_gradient_is_found():
    expected = {"a.weight": torch.ones(2), "b.weight": torch.ones(2)}
    errors = doctor._compare(expected, {"a.weight": torch.ones(2)})
    assert [error.relative_error for error in errors] == [0.0, float("inf")]


def test_a_gradient_that_nearly_cancels_is_measured_against_the_whole():
    expected = {"a.weight": torch.tensor([10.0]), "b": torch.tensor([1e-3])}
    found = {"a.weight": torch.tensor([10.0]), "b": torch.tensor([1.01e-3])}
    errors = {error.name: error.relative_error for error in doctor._compare(expected, found)}
    assert errors["b"] == pytest.approx(1e-5 / 0.1, rel=1e-3)
