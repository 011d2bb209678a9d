import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_kernels_agree_with_float64_in_the_interpreter():
    """Runs the tests of this folder once more in a process where Triton interprets kernels."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE)]
    run = subprocess.run(
        command,
        env=environment,
        cwd=HERE.parents[1],
        capture_output=True,
        check=False,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed, run.stdout[-2000:]
    assert int(passed[1]) > 30, "most kernel tests did not run"
