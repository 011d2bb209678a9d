"""Measure embedtrain on a GPU, stage by stage, and write what was found as JSON and Markdown.

    python scripts/gpu_report.py --output DIR [--stage NAME ...] [--budget 540] [--device cpu --tiny]

Every stage runs in a process of its own with a limit, at most nine minutes altogether. Started again, stages that
are done are not done again if commit, device and torch are the same. A stage that fails or runs out of time is a
line that says so. Needed are torch for CUDA and this checkout; what is missing besides (transformers, peers) is a
row that was skipped. ``scripts/pack_gpu_report.py`` packs what a bare machine lacks. Exit codes: 0; 1 where a
stage failed; 2 without a device.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]  # nothing need be installed
    from gpu_report_main import main

    sys.exit(main())
