"""What a run says of its speed, by a clock that the test turns."""

from unittest.mock import Mock

import pytest
import pytorch_lightning as pl

from embedtrain.training import speed as speed_module
from embedtrain.training.flops import StepWork
from embedtrain.training.speed import Speed, describe_speed
from embedtrain.training.trained_module import TrainedModule

WORK = StepWork(texts=10, tokens=900, computed_tokens=1000, operations=6_000)

TRAINER, MODULE = Mock(pl.Trainer), Mock(TrainedModule)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(speed_module.time, "perf_counter", found)
    monkeypatch.setattr(speed_module, "step_counter", lambda _: lambda _: WORK)
    monkeypatch.setattr(speed_module, "peak_memory", lambda **_: 5)
    return found


def started(monkeypatch, device="cpu", peak=None):
    module = Mock(TrainedModule, device=Mock(type=device), config=Mock(precision="bf16"))
    known = None if peak is None else Mock(peak=lambda _: peak)
    monkeypatch.setattr(speed_module, "this_device", lambda _: known)
    measured = Speed(module)
    measured.on_train_start(TRAINER, module)
    assert module.readings == measured.read
    return measured


def figures(measured):
    return {name.removeprefix("speed/"): value for name, value in measured.read().items()}


def step(measured, clock, *, waited=0.0, computed=1.0, paused=0.0):
    clock.now += waited
    measured.on_train_batch_start(TRAINER, MODULE, None, 0)
    clock.now += computed
    measured.on_train_batch_end(TRAINER, MODULE, None, None, 0)
    clock.now += paused
    measured.after.on_train_batch_end()


def test_the_first_line_has_no_figures_and_others_are_averages_since_the_last(monkeypatch, clock):
    measured = started(monkeypatch, peak=12_000.0)
    assert measured.read() == {}
    for _ in range(4):
        step(measured, clock, waited=0.25, computed=0.75)
    assert figures(measured) == {
        "tokens_per_second": 900,
        "texts_per_second": 10,
        "padding_ratio": pytest.approx(0.1),
        "data_wait_ratio": 0.25,
        "peak_memory_bytes": 5,
        "mfu": 0.5,
    }
    step(measured, clock, computed=0.5)
    assert figures(measured)["tokens_per_second"] == 1800


def test_saving_and_measuring_are_not_the_time_of_steps(monkeypatch, clock):
    measured = started(monkeypatch)
    step(measured, clock)
    step(measured, clock, paused=30.0)
    step(measured, clock)
    found = figures(measured)
    assert found["tokens_per_second"] == 900
    assert "mfu" not in found  # the device is not in the table


def test_a_pause_hides_what_a_gpu_computed_in_it_so_its_line_says_nothing(monkeypatch, clock):
    measured = started(monkeypatch, device="cuda", peak=12_000.0)
    step(measured, clock, paused=30.0)
    assert measured.read() == {}
    step(measured, clock)
    assert figures(measured)["mfu"] == 0.5


def test_what_is_not_counted_has_no_mfu(monkeypatch, clock):
    measured = started(monkeypatch, peak=12_000.0)
    uncounted = StepWork(10, 900, 1000, None, None)
    monkeypatch.setattr(measured, "_count", lambda _: uncounted)
    step(measured, clock)
    assert set(figures(measured)) & {"mfu", "tokens_per_second"} == {"tokens_per_second"}


def test_a_line_is_told_in_words():
    line = {"tokens_per_second": 12345.6, "padding_ratio": 0.2, "data_wait_ratio": 0.001, "mfu": 0.41}  # fmt: skip
    line = {"loss": 1.0} | {f"speed/{name}": value for name, value in line.items()}
    assert describe_speed(line) == "12,346 tokens/s, MFU 41%, padding 20%"
    assert describe_speed({"loss": 1.0}) == ""
