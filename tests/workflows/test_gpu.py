"""What the doctor says of machines with a GPU, on made-up ones."""

from dataclasses import replace

import pytest

from embedtrain.workflows import gpu
from embedtrain.workflows.gpu import Facts, find, read_facts

GOOD = Facts(
    driver="580.65",
    cuda="13.0",
    torch="2.13.0",
    name="NVIDIA H100 80GB HBM3",
    capability=(9, 0),
    tf32=True,
    triton=True,
    varlen="torch",
)


def bad(**changes):
    return [one for one in find(replace(GOOD, **changes)) if not one.is_good]


def test_a_machine_that_lacks_nothing_is_told_so():
    assert bad() == []
    assert "989 TFLOP/s bf16" in find(GOOD)[1].found


@pytest.mark.parametrize(
    ("changes", "what", "words"),
    [
        ({"name": None, "cuda": None}, "torch", "built for CPUs"),
        ({"name": None, "driver": "470.82"}, "driver", "older than the 580 that CUDA 13.0 needs"),
        ({"name": None}, "driver", "torch sees no GPU"),
        ({"name": "NVIDIA Something"}, "GPU", "no MFU"),
        ({"capability": (7, 5)}, "bf16", "without tensor cores"),
        ({"tf32": False}, "TF32", "at 67 of 494 TFLOP/s"),
        ({"varlen": None}, "attention without padding", "texts are padded"),
        ({"triton": False}, "Triton", "chunked"),
        ({"capability": (8, 9)}, "fused kernels", "capability 8.9"),
    ],
)
def test_what_is_missing_is_named_with_its_cost(changes, what, words):
    named = {one.what: f"{one.found} {one.cost}" for one in bad(**changes)}
    assert words in named[what]
    assert all(one.cost for one in bad(**changes))


def test_the_driver_is_read_and_a_machine_without_one_has_nothing_to_say(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert read_facts() is None
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build\n"
    (tmp_path / "version").write_text(line)
    facts = read_facts()
    assert (facts.driver, facts.name) == ("575.57", None)


def test_a_gpu_is_asked_for_what_it_can(monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu.torch.cuda, "get_device_name", lambda: "NVIDIA L4")
    monkeypatch.setattr(gpu.torch.cuda, "get_device_capability", lambda: (8, 9))
    facts = read_facts()
    assert facts.name == "NVIDIA L4"
    assert facts.varlen == "torch"
    assert [one.what for one in find(facts) if not one.is_good][-1] == "fused kernels"
