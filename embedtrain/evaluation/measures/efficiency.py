"""What a model costs: latency, throughput and index size, on a named machine."""

import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import torch

from embedtrain.errors import UserError

Input = TypeVar("Input")
Result = TypeVar("Result")

TIMED_QUERIES = 200
"""Single queries whose latency is measured: fewer make the 99th percentile their maximum."""


@dataclass(frozen=True)
class Machine:
    """The machine that figures were measured on."""

    cpu: str
    gpu: str | None
    num_threads: int
    """Threads that torch uses."""
    memory_gib: float


@dataclass(frozen=True)
class Latency:
    """Seconds for one query at a time, with a warm cache."""

    mean_seconds: float
    p50_seconds: float
    p95_seconds: float
    num_calls: int
    p99_seconds: float | None = None


@dataclass(frozen=True)
class Price:
    """What a machine costs, and what follows from that; units are those of the price."""

    per_hour: float
    per_million_documents: float
    """To encode them, in batches."""
    per_million_queries: float
    """To answer them one after the other."""


@dataclass(frozen=True)
class Efficiency:
    """The cost that stands beside the quality of a model."""

    machine: Machine
    num_documents: int
    documents_per_second: float
    """Encoded in batches, tokenisation included."""
    query_latency: Latency
    """From the text of one query to its results."""
    bytes_per_document: float
    """In the index, without the text."""
    index_bytes: int | None = None
    peak_memory_bytes: int | None = None
    """Most memory that the process has held: on the GPU where there is one, else resident."""
    price: Price | None = None


def measure_latency(
    call: Callable[[Input], object],
    inputs: Sequence[Input],
    *,
    num_warmup: int | None = None,
    num_calls: int | None = None,
) -> Latency:
    """Time calls one by one, after a warm-up that is not counted; inputs are used in turn.

    ``num_calls`` is :data:`TIMED_QUERIES` where nothing is said, and ``num_warmup`` a tenth of it.

    A call must end with its result on the CPU, or work queued on a GPU is not counted.
    """
    if len(inputs) == 0:
        raise UserError("latency", "needs at least one query", cure="Check the data and its split")
    num_calls = TIMED_QUERIES if num_calls is None else num_calls
    num_warmup = num_calls // 10 if num_warmup is None else num_warmup
    supply = cycle(inputs)
    for query in islice(supply, num_warmup):
        call(query)
    seconds = []
    for query in islice(supply, num_calls):
        start = time.perf_counter()
        call(query)
        seconds.append(time.perf_counter() - start)
    p50, p95, p99 = np.quantile(seconds, [0.5, 0.95, 0.99]).tolist()
    return Latency(float(np.mean(seconds)), p50, p95, num_calls, p99)


def measure_throughput(call: Callable[[], Result], num_items: int) -> tuple[Result, float]:
    """Run a call once and return its result and how many items it did per second."""
    start = time.perf_counter()
    result = call()
    return result, num_items / (time.perf_counter() - start)


def cost_of_search(
    num_documents: int,
    documents_per_second: float,
    query_latency: Latency,
    index_bytes: int,
    price_per_hour: float | None,
) -> Efficiency:
    """Put figures that were just measured on this machine together, and what follows from them."""
    return Efficiency(
        machine=describe_machine(),
        num_documents=num_documents,
        documents_per_second=documents_per_second,
        query_latency=query_latency,
        bytes_per_document=index_bytes / num_documents,
        index_bytes=index_bytes,
        peak_memory_bytes=peak_memory(),
        price=None
        if price_per_hour is None
        else price_work(price_per_hour, documents_per_second, query_latency),
    )


def price_work(per_hour: float, documents_per_second: float, latency: Latency) -> Price:
    """Turn the price of an hour of the machine into that of a million documents and queries."""
    return Price(
        per_hour,
        per_hour / 3600 * 1e6 / documents_per_second,
        per_hour / 3600 * 1e6 * latency.mean_seconds,
    )


def peak_memory() -> int:
    """Return the most bytes that this process has held so far."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_machine() -> Machine:
    """Name the processor, the first GPU if torch sees one, torch's threads and the memory."""
    return Machine(
        cpu=_processor_name(),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        num_threads=torch.get_num_threads(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
    )


def _processor_name(description: Path = Path("/proc/cpuinfo")) -> str:
    """Read the model name that Linux gives; elsewhere what Python knows."""
    if description.is_file():
        for line in description.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
