"""Measure embedtrain on a GPU, stage by stage, and write what was found as JSON and Markdown.

    python scripts/gpu_report.py --output DIR [--stage NAME ...] [--budget 540] [--device cpu --tiny]

Every stage runs in a process of its own with a limit, at most nine minutes altogether. Started again, stages that
are done are not done again if commit, device and torch are the same. A stage that fails or runs out of time is a
line that says so. Needed are torch for CUDA and this checkout; what is missing besides (transformers, peers) is a
row that was skipped. ``scripts/pack_gpu_report.py`` packs what a bare machine lacks. Exit codes: 0; 1 where a
stage failed; 2 without a device.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]  # nothing need be installed


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; return the exit code."""
    from gpu_report_main import run
    from gpu_report_stages import STAGES

    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of results and report")
    parser.add_argument("--stage", action="append", choices=names, help="leave out the others")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds of all stages")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: shows that it runs")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks")
    parser.add_argument("--run", nargs=2, metavar=("STAGE", "ROWS"), help=argparse.SUPPRESS)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
