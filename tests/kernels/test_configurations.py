import subprocess
import sys

import pytest
import torch
from embedtrain_kernels import availability
from embedtrain_kernels.configurations import (
    INFONCE_BACKWARD,
    INFONCE_FORWARD,
    MASKS,
    infonce_tiles,
    masks_for,
    maxsim_tile,
    split_dim,
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


def test_two_powers_of_two_cover_every_dim():
    for dim in range(1, 513):
        low, high = split_dim(dim)
        assert low & (low - 1) == 0
        assert high == 0 or (high & (high - 1) == 0 and 16 <= high < low)
        assert dim <= low + high < 2 * max(dim, 16)


@pytest.mark.parametrize(
    ("dim", "cover"), [(384, (256, 128)), (48, (32, 16)), (448, (512, 0)), (5, (16, 0))]
)
def test_the_smallest_cover_is_chosen(dim, cover):
    assert split_dim(dim) == cover


def test_every_architecture_serves_16_bit_embeddings_up_to_512_and_float32_up_to_128():
    for architecture in availability.ARCHITECTURES:
        for dtype in ("bf16", "fp16"):
            assert infonce_tiles(architecture, dtype, 512) is not None
            assert infonce_tiles(architecture, dtype, 528) is None
        assert infonce_tiles(architecture, "fp32", 128) is not None
        assert infonce_tiles(architecture, "fp32", 144) is None
        assert maxsim_tile(architecture, "bf16", 128) is not None
    assert infonce_tiles(86, "bf16", 128) is None


def test_every_forward_tile_has_a_backward_tile():
    assert INFONCE_FORWARD.keys() == INFONCE_BACKWARD.keys()


@pytest.mark.parametrize(
    ("wanted", "form"),
    [
        ((1, 0, False), "none"),
        ((1, 1, False), "ids"),
        ((2, 0, False), "all"),
        ((1, 0, True), "all"),
    ],
)
def test_masks_are_filled_up_to_the_smallest_form(wanted, form):
    *counts, ceiling = wanted
    assert masks_for(*counts, ceiling=ceiling) == form
    assert all(a <= b for a, b in zip(wanted, MASKS[form], strict=True))


def test_masks_larger_than_every_form_have_none():
    assert masks_for(3, 0, ceiling=False) is None
    assert masks_for(1, 5, ceiling=False) is None


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
