"""Which precision a run computes in where its recipe leaves it open, and what is said where it is a bad one."""

import time

import pytest
import torch
from torch import nn

from embedtrain.training import precision
from embedtrain.training.precision import bf16_speed, choose_precision, products_of
from embedtrain.training.settings import TrainerConfig


def chosen(monkeypatch, ratio, **settings):
    monkeypatch.setattr(precision, "bf16_speed", lambda *_: ratio)
    return choose_precision(TrainerConfig(steps=1, **settings), nn.Linear(2, 2)).precision


@pytest.mark.parametrize(
    ("ratio", "expected"), [(2.0, "bf16"), (1.1, "fp32"), (0.9, "fp32"), (0.02, "fp32")]
)
def test_auto_is_the_faster_one_and_float32_on_a_tie(ratio, expected, monkeypatch, capsys):
    assert chosen(monkeypatch, ratio) == expected
    assert f"trainer.precision auto is {expected} here" in capsys.readouterr().err


def test_what_a_recipe_says_is_kept_and_said_to_be_slow_where_it_is(monkeypatch, capsys):
    assert chosen(monkeypatch, 9.0, precision="fp32") == "fp32"
    assert chosen(monkeypatch, 1.5, precision="bf16") == "bf16"
    assert capsys.readouterr().err == ""
    assert chosen(monkeypatch, 0.02, precision="bf16") == "bf16"
    assert "matrix products take 50 times as long as in fp32" in capsys.readouterr().err


def test_a_measurement_compares_both_and_uses_up_no_random_number(bert):
    from transformers import AutoModel

    state = torch.get_rng_state()
    assert bf16_speed(AutoModel.from_pretrained(bert), torch.device("cpu")) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert bf16_speed(nn.Linear(2, 2), torch.device("cpu")) == 1


def test_a_machine_that_is_busy_with_others_is_not_taken_for_a_slow_product(bert, monkeypatch):
    """Others get the processor for a second in the middle of each product in bf16."""
    from transformers import AutoModel

    clock, away = time.perf_counter, [0.0]

    def linear(*given):
        away[0] += torch.is_autocast_enabled("cpu")
        return original(*given)

    original = precision.F.linear
    monkeypatch.setattr(precision.F, "linear", linear)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock() + away[0])
    assert bf16_speed(AutoModel.from_pretrained(bert), torch.device("cpu")) > 0.01


@pytest.mark.parametrize(("asked", "during"), [("bf16", "tf32"), ("fp32", "ieee")])
def test_a_run_on_a_gpu_rounds_float32_products_only_beside_bf16(asked, during, monkeypatch):
    settings = torch.backends.cuda.matmul
    monkeypatch.setattr(precision, "preferred_device", lambda _: torch.device("cuda"))
    for before in ("none", "tf32"):
        settings.fp32_precision = before
        try:
            with products_of(TrainerConfig(steps=1, precision=asked)):
                assert settings.fp32_precision == during
            assert settings.fp32_precision == before
        finally:
            settings.fp32_precision = "none"


def test_auto_on_a_gpu_is_bf16_where_the_gpu_has_it(monkeypatch):
    model = nn.Linear(2, 2)
    monkeypatch.setattr(precision, "bf16_speed", lambda *_: bf16_speed(model, torch.device("cuda")))
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *, has=has, **_: has)
        assert choose_precision(TrainerConfig(steps=1), model).precision == expected
