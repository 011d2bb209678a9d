import subprocess
import sys

import pytest
import torch
from places import SCRIPTS

SCRIPT = SCRIPTS / "benchmark_kernels.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is here: the script would measure")
def test_without_a_device_the_benchmark_says_so_and_exits_2():
    command = [sys.executable, str(SCRIPT)]
    run = subprocess.run(command, capture_output=True, check=False, text=True)
    assert run.returncode == 2
    assert "no CUDA device" in run.stderr
    assert run.stdout == ""
