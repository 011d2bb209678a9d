"""Compile every Triton kernel ahead of time for sm_80, sm_90 and sm_100 and judge what came out; no GPU needed.

    python scripts/check_kernels.py [--reduced] [--jobs 2] [--json FILE] [--update-golden]

Each entry must become machine code with the tensor-core instructions it was designed for, without register
spills, without global atomics, within the limits of shared and tensor memory, at least one block to a
multiprocessor, and not more than 10 % above the numbers kept in kernels/golden for this version of Triton.
This proves that kernels compile and fit. It says nothing about their speed: occupancy and share of the
roofline, in percent, which stand beside the numbers in the files, are computed, not measured.
"""

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "kernels" / "golden"
MARGIN = 1.10
GUARDED = ("registers", "shared_bytes", "tensor_memory_columns", "instructions")
"""What must not grow by more than the margin."""
HEADER = "reg shared tmem instr   mma wgmma tcgen05 blocks occ"


COMPUTED = ("occupancy", "roofline")
"""What is kept beside them for readers."""


def measure(name: str) -> tuple[str, dict[str, Any], list[str]]:
    """Compile one entry in a worker process; return its name, numbers and faults."""
    from embedtrain_kernels.catalogue import entries
    from embedtrain_kernels.inspection import faults, inspect_entry
    from embedtrain_kernels.roofline import figures

    entry = next(entry for entry in entries() if entry.name == name)
    try:
        found = inspect_entry(entry)
    except Exception as error:
        return name, {}, [f"does not compile: {type(error).__name__} {str(error)[:200]}"]
    return name, asdict(found) | figures(entry, found.blocks), faults(entry, found)


def grown(found: dict[str, Any], golden: dict[str, Any]) -> list[str]:
    """Say what needs more than it did when the golden numbers were stored."""
    return [
        f"{key} grew from {golden[key]} to {found[key]}"
        for key in GUARDED
        if found and found[key] > MARGIN * golden[key]
    ]


def row(name: str, found: dict[str, Any]) -> str:
    """Format one line of the table."""
    if not found:
        return name
    counts = [found[key] for key in ("mma", "wgmma", "tcgen05", "blocks")]
    numbers = [found[key] for key in GUARDED]
    return (
        f"{numbers[0]:3d} {numbers[1]:6d} {numbers[2]:4d} {numbers[3]:5d} "
        f"{counts[0]:5d} {counts[1]:5d} {counts[2]:7d} {counts[3]:6d} {found['occupancy']:3d}  {name}"
    )


def names(*, reduced: bool) -> list[str]:
    """Return the names of the entries to compile."""
    from embedtrain_kernels.catalogue import entries

    found = [entry.name for entry in entries() if entry.reduced or not reduced]
    assert len(found) == len(set(found)), "two entries have the same name"
    return found


def check(wanted: list[str], jobs: int, golden: dict[str, dict[str, Any]]) -> tuple[dict, list]:
    """Compile, print the table and collect numbers and faults."""
    numbers, wrong = {}, []
    print(HEADER)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for name, found, faults in pool.map(measure, wanted):
            unknown = golden and name not in golden
            missing = ["has no golden numbers; run --update-golden"] if unknown else []
            all_faults = [*faults, *missing, *grown(found, golden.get(name, found))]
            numbers[name] = found
            wrong += [f"{name}: {fault}" for fault in all_faults]
            print(row(name, found), *(f"  <- {fault}" for fault in all_faults), flush=True)
    return numbers, wrong


def main() -> int:
    """Run the check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reduced", action="store_true", help="the few entries of the test suite")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers side by side")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--update-golden", action="store_true", help="store what came out")
    options = parser.parse_args()
    os.environ.pop("TRITON_INTERPRET", None)
    with tempfile.TemporaryDirectory(prefix="check_kernels_") as cache:
        os.environ["TRITON_CACHE_DIR"] = cache  # never a stale result
        import triton

        file = GOLDEN / f"triton-{triton.__version__}.json"
        golden = json.loads(file.read_text()) if file.exists() and not options.update_golden else {}
        compared = f"compared with {file.name}" if golden else "no golden numbers compared"
        print(f"triton {triton.__version__}, {compared}")
        numbers, wrong = check(names(reduced=options.reduced), options.jobs, golden)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
    if options.update_golden and not wrong:
        kept = {
            name: {key: found[key] for key in (*GUARDED, *COMPUTED) if key in found}
            for name, found in numbers.items()
        }
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{len(numbers)} kernels compiled, {len(wrong)} faults")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
