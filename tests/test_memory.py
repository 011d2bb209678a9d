"""What a process may still take, and errors that say there is nothing left."""

import resource
import subprocess
import sys
from pathlib import Path

import forks
import numpy as np
import pytest
import torch

from embedtrain import memory

MIB = 2**20


def test_what_numpy_and_torch_raise_is_recognised():
    for allocate in (lambda: np.empty(2**58), lambda: torch.empty(2**50, dtype=torch.uint8)):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            allocate()
        assert memory.is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_other_errors_are_not_taken_for_it(error, expected):
    assert memory.is_out_of_memory(error) == expected


@pytest.mark.parametrize(
    ("line", "folder", "files"),
    [
        ("0::/job/step", "job", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:cpu,memory:/job/step",
            "memory/job",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_a_control_group_above_limits_the_room(line, folder, files, tmp_path, monkeypatch):
    group = tmp_path / folder
    (group / "step").mkdir(parents=True)
    limit, usage, cached = files
    (group / limit).write_text(f"{100 * MIB}\n")
    (group / usage).write_text(f"{90 * MIB}\n")
    (group / "memory.stat").write_text(f"anon 5\n{cached} {20 * MIB}\n")
    (tmp_path / "cgroup").write_text(f"7:pids:/\n{line}\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "cgroup")
    assert memory.room() == 30 * MIB
    (group / limit).write_text("max\n" if limit.endswith("max") else f"{2**62}\n")
    assert memory.room() > 30 * MIB


def test_ulimit_limits_the_room():
    def work():
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 50 * MIB, resource.RLIM_INFINITY))
        sys.stdout.write(str(memory.room() // MIB))

    assert 40 <= int(forks.fork(work).stdout) <= 50


def test_a_heap_that_grows_is_swept_and_one_that_does_not_is_left_alone(monkeypatch):
    held = iter([90, 100, 109, 111, 104, 114, 115, 90])
    monkeypatch.setattr(memory, "FIRST_STEPS", 2)
    monkeypatch.setattr(memory, "anonymous", lambda: next(held))
    sweeps = []
    monkeypatch.setattr(memory, "sweep", lambda: sweeps.append(1) or True)
    heap = memory.Heap()
    # 100 is usual, 111 is swept; then 114 is.
    assert [heap.step_done() for _ in range(8)] == [False] * 3 + [True] + [False] * 4
    assert heap.usual == 114


def test_a_heap_is_swept_after_so_many_steps_in_any_case(monkeypatch):
    monkeypatch.setattr(memory, "anonymous", lambda: 100)
    monkeypatch.setattr(memory, "sweep", lambda: True)
    heap = memory.Heap(period=3)
    assert [heap.step_done() for _ in range(7)] == [False, False, True] * 2 + [False]


KEEPING = """
import numpy
from embedtrain.memory import Heap, anonymous
for prepare in (Heap().begin, Heap().end):
    prepare()
    block = numpy.ones(10 * 2**20)
    del block
    print(anonymous() // 2**20)
"""


def test_between_begin_and_end_large_blocks_stay_with_the_process():
    run = [sys.executable, "-c", KEEPING]
    during, after = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert int(during) - int(after) >= 79


def test_a_sweep_gives_back_what_is_free_between_what_is_used():
    def work():
        blocks = [torch.ones(25_000) for _ in range(1000)]
        kept, blocks = blocks[::50], None
        before = memory.anonymous()
        assert memory.sweep()
        sys.stdout.write(f"{(before - memory.anonymous()) // MIB} {len(kept)}")

    freed, kept = forks.fork(work).stdout.split()
    assert (int(freed) > 60, kept) == (True, "20")
