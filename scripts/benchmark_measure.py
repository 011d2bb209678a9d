"""Measure one step of work per process: CPU time and peak memory that no other variant has touched."""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MIB = 2**20


class Measurement(NamedTuple):
    """What one step cost."""

    cpu_seconds: float
    peak_mib: float
    """Peak resident memory above that before the step, gradients included."""


def measure_step(step: Callable[[], object]) -> Measurement:
    """Run a step once and measure it; the caller has warmed up the libraries with a small one."""
    ctypes.CDLL(None).malloc_trim(0)  # memory freed before must not serve the step unseen
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start = _resident("VmRSS"), time.process_time()
    step()
    seconds = time.process_time() - start
    return Measurement(seconds, (_resident("VmHWM") - before) / MIB)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def in_subprocess(
    script: Path, arguments: Sequence[object], python: str = sys.executable
) -> dict[str, float]:
    """Run ``script`` with one thread and return the JSON object it prints last; where it fails, end as it did."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    finished = subprocess.run(
        [python, str(script), *map(str, arguments)],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        sys.stderr.write(finished.stderr)
        sys.exit(finished.returncode)
    result: dict[str, float] = json.loads(finished.stdout.strip().splitlines()[-1])
    return result


def apart(script: Path, runs: Mapping[str, Sequence[object]]) -> dict[str, dict[str, float]]:
    """Run a script once for each name with its arguments, say what each found, and return all."""
    results = {}
    for name, arguments in runs.items():
        results[name] = in_subprocess(script, arguments)
        print(name, results[name], file=sys.stderr)
    return results


def write_figures(path: Path, results: Mapping[str, Mapping[str, float]]) -> None:
    """Write what :func:`apart` found as one flat JSON object."""
    flat = {f"{name}_{k}": v for name, figures in results.items() for k, v in figures.items()}
    path.write_text(json.dumps(flat, indent=1) + "\n")


def count(text: str) -> int:
    """Read a number of things from the command line: at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, and is {number}")
    return number


def interleaved(
    script: Path, variants: Sequence[Sequence[object]], repeats: int
) -> list[Measurement]:
    """Measure variants in turn, so that a busy machine slows all of them; return medians."""
    found: list[list[Measurement]] = [[] for _ in variants]
    for _ in range(repeats):
        for results, arguments in zip(found, variants, strict=True):
            results.append(Measurement(**in_subprocess(script, arguments)))
    return [
        Measurement(*(statistics.median(values) for values in zip(*results, strict=True)))
        for results in found
    ]
