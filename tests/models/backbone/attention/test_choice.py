"""Who computes attention on devices that are not here."""

import logging
from dataclasses import replace

import pytest
import torch

from embedtrain.models.backbone.attention import choice
from embedtrain.models.backbone.attention.choice import Call, Installed, choose

BARE = Installed(varlen=True, torch_flash=True, triton=True)
"""torch 2.12 or later for CUDA and nothing else."""
OLD = replace(BARE, varlen=False)
"""torch 2.6 to 2.11."""
ALL = Installed(*[True] * 6)
H100, A100, A10, L4, B200, BLACKWELL, T4, V100, P100 = (
    (9, 0), (8, 0), (8, 6), (8, 9), (10, 0), (12, 0), (7, 5), (7, 0), (6, 0)
)  # fmt: skip
BF16, FP16, FP32, FP64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
STEP = Call("cuda", BF16, 64, H100, gradients=True)

CASES = [
    ("varlen", {}, BARE),
    ("varlen", {"dtype": FP16}, BARE),
    ("varlen", {"capability": A100}, BARE),
    ("varlen", {"capability": B200}, BARE),
    ("varlen", {"capability": L4}, BARE),
    ("varlen", {"windowed": True}, BARE),
    ("varlen", {"causal": True}, BARE),
    ("varlen", {"shortened": True}, BARE),
    ("flash_attn_3", {}, ALL),
    ("varlen", {"capability": A100}, ALL),
    ("varlen", {"capability": B200}, ALL),
    # Dropout: what BERT and its kin have by default. No package is needed for it.
    ("torch_flash", {"dropout": True}, BARE),
    ("torch_flash", {"dropout": True, "windowed": True}, BARE),
    ("flash_attn_2", {"dropout": True}, ALL),
    ("flash_attn_2", {"dropout": True, "capability": A100}, ALL),
    ("kernels", {"dropout": True}, Installed(kernels=True)),
    ("torch_flash", {}, OLD),
    ("flash_attn_2", {}, Installed(flash_attn_2=True)),
    ("kernels", {}, Installed(kernels=True)),
    # float32, old chips and what flash attention has no room for.
    ("efficient", {"dtype": FP32}, ALL),
    ("efficient", {"dtype": FP32, "dropout": True}, ALL),
    ("efficient", {"dtype": FP32, "causal": True, "shortened": True}, ALL),
    ("flex", {"dtype": FP32, "windowed": True}, BARE),
    ("padded", {"dtype": FP32, "windowed": True, "dropout": True}, ALL),
    ("padded", {"dtype": FP32, "windowed": True}, Installed()),
    ("efficient", {"dtype": FP16, "capability": T4}, BARE),
    ("efficient", {"dtype": FP32, "capability": P100}, BARE),
    ("flex", {"dtype": FP16, "capability": T4, "windowed": True}, BARE),
    ("flex", {"dtype": FP32, "capability": V100, "windowed": True}, BARE),
    ("padded", {"dtype": FP32, "capability": P100, "windowed": True}, BARE),
    ("padded", {"dtype": BF16, "capability": T4}, BARE),
    ("padded", {"dtype": FP64}, ALL),
    ("flex", {"softcap": True}, ALL),
    ("padded", {"softcap": True, "dropout": True}, ALL),
    ("efficient", {"head_dim": 512}, ALL),
    ("efficient", {"shortened": True, "causal": True}, ALL),
    ("flex", {"shortened": True, "windowed": True}, ALL),
    # Heads of Gemma are 256 wide.
    ("varlen", {"head_dim": 256, "capability": L4}, BARE),
    ("varlen", {"head_dim": 224, "capability": A100}, BARE),
    ("efficient", {"head_dim": 224, "capability": L4}, BARE),
    ("varlen", {"head_dim": 224, "capability": L4, "gradients": False}, BARE),
    ("efficient", {"head_dim": 256, "capability": BLACKWELL, "dropout": True}, BARE),
    ("torch_flash", {"head_dim": 256, "capability": A100, "dropout": True}, BARE),
    ("flex", {"head_dim": 224, "capability": A10, "windowed": True}, BARE),
    ("grouped", {"device": "cpu", "dtype": FP32}, ALL),
    ("grouped", {"device": "mps", "dtype": FP32}, ALL),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "changes", "has"), CASES)
def test_the_table_says_who(backend, changes, has):
    found = choose(replace(STEP, **changes), has)
    assert found.backend == backend, found.reason


def test_the_reason_names_numbers_and_chip():
    assert choose(STEP, BARE).reason == (
        "torch's own variable-length attention (bfloat16 on compute capability 9.0)"
    )


def test_where_nothing_fits_each_obstacle_is_named_once():
    reason = choose(replace(STEP, softcap=True, dropout=True), ALL).reason
    for part in ("varlen_attn has no dropout", "no cap on scores", "FlexAttention has no dropout"):
        assert reason.count(part) == 1


def test_a_choice_is_said_once(caplog):
    choice.announce.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            choice.announce(choose(STEP, BARE))
    assert caplog.text.count("attention without padding: varlen, torch's own") == 1


def test_this_machine_can_be_asked():
    found = choice.installed()
    assert found.torch_flash == torch.backends.cuda.is_flash_attention_available()
    assert choice._has_varlen() == (torch.__version__ >= "2.12")
