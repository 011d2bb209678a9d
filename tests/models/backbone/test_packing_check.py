"""The check at load: whoever is wrong, packed or padded, and in whatever type of number."""

import pytest
import torch
from transformers import BertConfig

from embedtrain.errors import UserError
from embedtrain.models.backbone import packing_check
from embedtrain.models.backbone.packing_check import Running, as_right, enough, states_agree
from embedtrain.models.build import build_dense
from embedtrain.models.dense.config import DenseConfig

SIZES = [40, 9, 3]
CPU = torch.device("cpu")
BF16 = Running("cpu", torch.bfloat16)


def states(error=0.0, seed=0):
    generator = torch.Generator().manual_seed(9)
    exact = torch.randn(sum(SIZES), 16, generator=generator)
    generator.manual_seed(seed)
    return exact + error * torch.randn(exact.shape, generator=generator)


@pytest.fixture
def encoder(bert):
    return build_dense(DenseConfig(backbone=bert), "cpu")


def test_rounded_states_may_be_twice_as_wrong_as_padded_ones():
    exact, usual = states(), states(0.01, seed=1)
    assert as_right(exact, usual, states(0.01, seed=2), SIZES)
    assert as_right(exact, usual, states(0.019, seed=2), SIZES)
    assert not as_right(exact, usual, states(0.03, seed=2), SIZES)


def test_packed_states_that_are_better_than_padded_ones_are_right():
    assert as_right(states(), states(0.5, seed=1), states(0.001, seed=2), SIZES)


def test_one_short_text_that_is_wrong_is_enough():
    ours = states(0.01, seed=2)
    ours[-3:] += 0.1
    assert not as_right(states(), states(0.01, seed=1), ours, SIZES)
    ours[-3:] = torch.nan
    assert not as_right(states(), states(0.01, seed=1), ours, SIZES)


def test_where_nothing_is_rounded_packed_may_differ_in_the_last_digits_only():
    assert as_right(states(), states(), states(1e-5, seed=1), SIZES)
    assert not as_right(states(), states(), states(1e-3, seed=1), SIZES)


def test_a_full_device_says_nothing_of_the_backbone(encoder):
    def full():
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        states_agree(encoder.backbone, Running("cpu"), SIZES, states, full)
    assert encoder.backbone.training is False


@pytest.mark.parametrize("rounded", [False, True])
def test_either_way_may_be_the_wrong_one(encoder, rounded):
    """In float32 the two must agree; rounded, only packed states that are worse than padded ones are refused."""
    running = BF16 if rounded else Running("cpu")

    def agree(padded, packed):
        answers = iter([padded[0], padded[1]] if rounded else [padded[0]])
        return states_agree(encoder.backbone, running, SIZES, lambda: next(answers), lambda: packed)

    exact, usual, wrong = states(), states(0.01, seed=1), states(0.2, seed=2)
    assert not agree((exact, usual), wrong)
    assert agree((exact, wrong), usual) == rounded
    assert not agree((wrong, wrong), exact) or rounded
    assert agree((exact, usual), exact)


def test_bf16_states_are_compared_with_float32_and_pass(encoder):
    """A bound of float32 would refuse every kernel in bf16: the states themselves are off by more."""
    with torch.no_grad():
        for weight in encoder.backbone.parameters():
            weight.mul_(8)  # so that what is rounded is not small beside the words' own vectors
        assert encoder._check_packing(CPU, BF16)
        texts = packing_check.texts_to_check(40, 200, 0, CPU)
        exact = encoder.eval()._padded_states(texts)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encoder._packed_states(texts)
    assert (rounded - exact).abs().max() > 1e-3 * exact.abs().max()


@pytest.mark.parametrize("running", [Running("cpu"), BF16])
def test_a_wrong_packed_path_is_refused_where_it_is_wished_for_and_left_by_auto(
    encoder, running, monkeypatch
):
    monkeypatch.setattr(Running, "of", classmethod(lambda cls, backbone, device: running))
    monkeypatch.setattr("embedtrain.models.text_model.position_offset", lambda config: 1)
    assert not encoder._packs(CPU)
    encoder.packing = "packed"
    with pytest.raises(UserError, match="packed is not exact"):
        encoder._packs(CPU)


@pytest.mark.parametrize("running", [Running("cpu"), BF16])
def test_a_wrong_padded_path_keeps_packing_from_being_used(encoder, running, monkeypatch):
    """Nothing says which of the two is right."""
    monkeypatch.setattr(Running, "of", classmethod(lambda cls, backbone, device: running))
    padded = encoder._padded_states
    monkeypatch.setattr(encoder, "_padded_states", lambda *args: padded(*args).flip(0))
    assert not encoder._packs(CPU)


def test_what_cannot_run_is_padded_and_said(encoder, monkeypatch, caplog):
    def refuse(*args, **more):
        raise ValueError("no kernel for this")

    monkeypatch.setattr("embedtrain.models.backbone.packed_attention.attend", refuse)
    with caplog.at_level("INFO"):
        assert not encoder._packs(CPU)
    assert "packing is not possible with this backbone: no kernel for this" in caplog.text


def test_the_check_runs_once_for_each_way_of_running(encoder, monkeypatch):
    checks = []
    monkeypatch.setattr(type(encoder), "_check_packing", lambda *args: checks.append(args) or True)
    for running in (BF16, BF16, Running("cpu"), BF16):
        monkeypatch.setattr(Running, "of", classmethod(lambda cls, *args, now=running: now))
        encoder._packs(CPU)
    assert len(checks) == 2


def test_a_gpu_packs_in_the_type_and_with_the_dropout_that_will_run(encoder, monkeypatch):
    """Looked at without a GPU: only its name is asked."""
    gpu = torch.device("cuda")
    assert Running.of(encoder.backbone.eval(), gpu) == Running("cuda", torch.float32, drops=False)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
        patch.setattr(torch, "get_autocast_dtype", {"cuda": torch.bfloat16}.get)
        assert Running.of(encoder.backbone, gpu).dtype == torch.bfloat16
    encoder.backbone.config.attention_probs_dropout_prob = 0.1
    assert Running.of(encoder.backbone, gpu).drops is False
    assert Running.of(encoder.backbone.train(), gpu).drops is True
    assert Running.of(encoder.backbone.bfloat16(), gpu).dtype == torch.bfloat16
    assert Running.of(encoder.backbone, CPU) == Running("cpu")


def test_the_check_chooses_the_backend_that_training_will_take(encoder, monkeypatch):
    layouts = []
    states = encoder._packed_states

    def watched(texts, attended=None, layers=(), **rehearsed):
        layouts.append(rehearsed)
        return states(texts, attended, layers, **rehearsed)

    monkeypatch.setattr(encoder, "_packed_states", watched)
    encoder.train()._check_packing(CPU, Running("cpu", drops=True))
    encoder.eval()._check_packing(CPU, Running("cpu"))
    assert layouts == [{"in_training": True, "drops": True}, {"in_training": False, "drops": False}]


def test_the_longest_text_reaches_beyond_the_window_and_not_much_further():
    config = BertConfig()
    assert enough(64, config) == 64
    assert enough(8192, config) == 512
    config.sliding_window = 1024
    assert enough(8192, config) == 2051
    assert enough(128, config) == 128
