import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from places import SCRIPTS

pytest.importorskip("triton")
SCRIPT = SCRIPTS / "check_kernels.py"


@pytest.fixture(scope="module")
def script():
    specification = spec_from_file_location("check_kernels", SCRIPT)
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_kernel_of_each_kind_compiles_within_its_limits(tmp_path):
    """In a process of its own: a compiled kernel must not be one that the interpreter has wrapped."""
    environment = {key: os.environ[key] for key in os.environ if key != "TRITON_INTERPRET"}
    file = tmp_path / "resources.json"
    command = [sys.executable, str(SCRIPT), "--reduced", "--jobs", "1", "--json", str(file)]
    run = subprocess.run(
        command, env=environment, capture_output=True, check=False, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "compared with" in run.stdout, "no golden numbers for this version of triton"
    found = json.loads(file.read_text())
    assert {name.split()[0] for name in found} == {
        "infonce_forward",
        "infonce_slopes",
        "maxsim_forward",
        "maxsim_backward",
        "exponentiate_rows",
    }


def test_growth_within_ten_percent_passes_and_beyond_it_fails(script):
    golden = dict.fromkeys(script.GUARDED, 100)
    assert script.grown({**golden, "registers": 110}, golden) == []
    assert script.grown({**golden, "shared_bytes": 111}, golden) == [
        "shared_bytes grew from 100 to 111"
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"spills": 1}, "spills registers"),
        ({"stack_bytes": 8}, "spills registers"),
        ({"shared_bytes": 232_449}, "shared memory"),
        ({"tensor_memory_columns": 513}, "tensor memory"),
        ({"atomics": 1}, "global atomics"),
        ({"wgmma": 0}, "no wgmma"),
        ({"blocks": 0}, "does not fit"),
    ],
)
def test_each_fault_is_found(change, fault):
    from embedtrain_kernels.catalogue import entries
    from embedtrain_kernels.inspection import Resources, faults

    entry = next(entry for entry in entries() if entry.instruction == "wgmma")
    sound = Resources(255, 0, 100_000, 0, 1000, 0, 24, 0, 0, 0, 1)
    assert faults(entry, sound) == []
    assert [fault in found for found in faults(entry, Resources(**{**vars(sound), **change}))] == [
        True
    ]


def test_names_are_distinct_and_the_reduced_ones_few(script):
    everything, few = script.names(reduced=False), script.names(reduced=True)
    assert len(few) < 10
    assert set(few) < set(everything)
