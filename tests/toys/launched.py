"""Small programs that a launcher starts as ranks."""

import os
import signal
import sys
import time

from embedtrain.training.ranks.launcher import launch

HEAD = """
import os, signal, sys, time
rank, report = int(os.environ["RANK"]), os.environ["EMBEDTRAIN_REPORT"]
def stopped(*_):
    open(report, "w").write("stopped at step 3")
    sys.exit(130)
"""

READY = "open(report + '.ready', 'w').write(str(os.getpid()))\n"


def wait_for_ranks(run):
    """Wait until both ranks have begun; return their process ids."""
    paths = [run / "ranks" / f"rank-{rank}.report.ready" for rank in range(2)]
    deadline = time.monotonic() + 30
    while not all(path.is_file() and path.read_text() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(path.read_text()) for path in paths]


def stop_when_ready(run):
    wait_for_ranks(run)
    os.kill(os.getpid(), signal.SIGTERM)


def run(tmp_path, program, ranks=2):
    launch([sys.executable, "-c", HEAD + program], ranks, tmp_path)
