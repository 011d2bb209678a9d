"""The prediction for a device that is not here: its arithmetic, and what a user is told."""

from unittest.mock import Mock

import pytest
import torch

from embedtrain.training.devices import device_of_key
from embedtrain.training.flops import StepWork
from embedtrain.training.planner import Plan
from embedtrain.training.settings import TrainerConfig
from embedtrain.workflows.prediction import describe_prediction, predict

WORK = StepWork(texts=100, tokens=16_000, computed_tokens=16_000, operations=10**13, computed=10**13)  # fmt: skip
PLAN = Plan(16_000, {"weights": 10**9}, 80 * 10**9)
WEIGHTS = torch.nn.Linear(1000, 1000, bias=False)


def predicted(key="h100", work=WORK, width=768, **settings):
    config = TrainerConfig(steps=1, precision="bf16", **settings)
    backbone = Mock(config=Mock(hidden_size=width, num_hidden_layers=12))
    return predict(device_of_key(key), work, WEIGHTS, backbone, PLAN, config)


def test_a_step_is_its_products_its_traffic_and_its_optimizer():
    found = predicted()
    products = 1e13 / (0.65 * 989e12)
    traffic = 380 * 768 * 12 * 16_000 / 3.35e12
    optimizer = 28 * 10**6 / 3.35e12
    assert found.seconds_per_step == pytest.approx(products + traffic + optimizer)
    assert found.tokens_per_second == pytest.approx(16_000 / found.seconds_per_step)
    assert found.mfu == pytest.approx(1e13 / found.seconds_per_step / 989e12)
    assert 0.2 < found.mfu < 0.6


def test_a_small_model_takes_as_long_as_its_launches():
    tiny = StepWork(texts=4, tokens=100, computed_tokens=100, operations=10**9, computed=10**9)
    found = predicted(work=tiny, width=64)
    assert found.seconds_per_step == pytest.approx(8e-6 * (278 + 75 * 12), rel=0.02)


def test_devices_micro_batches_and_slower_chips_count():
    one, four = predicted(), predicted(devices=4)
    assert four.tokens_per_second == pytest.approx(4 * one.tokens_per_second)
    twice = predicted(accumulate=2)
    assert twice.seconds_per_step == pytest.approx(2 * one.seconds_per_step, rel=0.01)
    assert predicted("a100").seconds_per_step > one.seconds_per_step


def test_what_is_not_counted_is_not_predicted():
    assert predicted(work=StepWork(10, 100, 100, None, None)) is None


def test_a_prediction_says_that_nothing_was_measured():
    told = describe_prediction(predicted(devices=4), 100)
    assert told.startswith("On 4 x h100 in bf16 (computed from its data sheet, not measured)")
    assert "of 80 GB free" in told
