import subprocess
import sys
from itertools import product

import pytest
import torch
from embedtrain_kernels import availability
from embedtrain_kernels.configurations import (
    INFONCE_FORMS,
    Tile,
    infonce_form,
    infonce_tile,
    maxsim_tile,
)

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import embedtrain_kernels.availability, embedtrain_kernels.configurations
import torch
import embedtrain.ops.infonce.loss as infonce, embedtrain.ops.maxsim.scores as maxsim
from embedtrain.errors import UserError
from embedtrain.types import TokenEmbeddings
query = torch.eye(4)
text = TokenEmbeddings(query, torch.tensor([4]))
calls = [
    lambda: infonce.infonce(query, query, torch.arange(4)[:, None], 0.1, backend="fused"),
    lambda: maxsim.maxsim(text, text, backend="fused"),
]
for call in calls:
    try:
        call()
    except UserError as error:
        assert "Install triton" in str(error), error
    else:
        raise AssertionError("no error")
"""


def test_without_triton_everything_imports_and_fused_says_what_to_install():
    subprocess.run([sys.executable, "-c", WITHOUT_TRITON], check=True)


def test_every_architecture_serves_every_type():
    for architecture in availability.ARCHITECTURES:
        for dtype, form in product(("bf16", "fp16", "fp32"), INFONCE_FORMS):
            assert infonce_tile(architecture, dtype, form) is not None
        assert maxsim_tile(architecture, "bf16", 128) is not None
    assert infonce_tile(86, "bf16") is None


def test_a_form_is_found_by_what_it_is_compiled_with():
    assert infonce_form() == "plain"
    assert infonce_form(guarded=True) == "guarded"
    assert infonce_form(nested=True) == "nested"


def test_many_warps_share_the_registers():
    assert Tile(16, 16, 16, num_warps=8, num_stages=2).launch()["maxnreg"] == 255
    assert Tile(16, 16, 16, num_warps=16, num_stages=2).launch()["maxnreg"] == 128


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((8, 0), 80), ((9, 0), 90), ((10, 0), 100), ((10, 3), 100), ((8, 6), None), ((12, 0), None)],
)
def test_a_device_is_served_by_the_tiles_of_its_architecture(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert availability.architecture(torch.device("cuda")) == expected


def test_the_cpu_is_served_in_the_interpreter_only(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert availability.architecture(torch.device("cpu")) is None
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert availability.architecture(torch.device("cpu")) == 90
    assert availability.architecture(torch.device("meta")) is None
