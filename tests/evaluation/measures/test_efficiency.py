"""Latency and throughput on a clock that the tests move."""

import platform
import time

import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import (
    Latency,
    _processor_name,
    describe_machine,
    measure_latency,
    measure_throughput,
    peak_memory,
    price_work,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock whose time is spent by calling it with a duration."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    return spend


def test_latency_is_of_the_calls_after_the_warm_up(clock):
    durations = [100.0] * 3 + [float(number) for number in range(1, 102)]
    latency = measure_latency(clock, durations, num_warmup=3, num_calls=101)
    assert latency.p50_seconds == pytest.approx(51.0)
    assert latency.p95_seconds == pytest.approx(96.0)
    assert latency.mean_seconds == pytest.approx(51.0)
    assert latency.p99_seconds == pytest.approx(100.0)
    assert latency.num_calls == 101


def test_few_queries_are_used_in_turn():
    seen = []
    measure_latency(seen.append, ["a", "b", "c"], num_warmup=2, num_calls=5)
    assert seen == ["a", "b", "c", "a", "b", "c", "a"]


def test_latency_without_queries_is_refused():
    with pytest.raises(UserError, match="latency needs at least one query"):
        measure_latency(print, [])


def test_throughput_comes_with_the_result(clock):
    def encode():
        clock(4.0)
        return "embeddings"

    assert measure_throughput(encode, 100) == ("embeddings", 25.0)


def test_the_machine_is_named():
    machine = describe_machine()
    assert machine.cpu
    assert machine.num_threads == torch.get_num_threads()
    assert machine.memory_gib > 0.1
    assert (machine.gpu is None) == (not torch.cuda.is_available())


def test_the_processor_is_named_with_and_without_the_file_of_linux(tmp_path):
    description = tmp_path / "cpuinfo"
    description.write_text("processor\t: 0\nmodel name\t: Fast CPU 9000\n")
    assert _processor_name(description) == "Fast CPU 9000"
    assert _processor_name(tmp_path / "absent") == (platform.processor() or platform.machine())


def test_a_price_per_hour_becomes_that_of_a_million():
    price = price_work(3.6, documents_per_second=500.0, latency=Latency(0.02, 0.02, 0.03, 10))
    assert price.per_million_documents == pytest.approx(2.0)
    assert price.per_million_queries == pytest.approx(20.0)


def test_peak_memory_is_that_of_this_process_and_never_falls():
    before = peak_memory()
    assert before > 10 * 2**20
    assert peak_memory() >= before
