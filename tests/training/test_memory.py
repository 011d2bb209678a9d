"""Plans of memory, and steps that are done again when it runs out all the same."""

import os

import pytest
import torch
from distributed_cases import Case, on_ranks, relative_error, train_case

from embedtrain.errors import UserError
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.training.planner import Shape, free_bytes, plan_memory
from embedtrain.training.settings import TrainerConfig

GIB = 2**30
SHAPE = Shape(
    parameters=100_000_000,
    trained=100_000_000,
    per_token=400_000,
    per_token_checkpointed=80_000,
    per_token_again=1_000,
    per_token_now=10_000,
    tokens=50_000,
    vectors=1_000_000,
    fixed=5_000_000,
    process=300_000_000,
)


def plan(available=80 * GIB, device="cuda", **settings):
    return plan_memory(TrainerConfig(steps=1, **settings), SHAPE, available, device)


def test_a_plan_adds_up_by_hand():
    found = plan(rematerialize=True, chunk_tokens=10_000)
    assert found.parts["weights"] == found.parts["gradients"] == 400_000_000
    assert found.parts["optimizer"] == 800_000_000
    assert found.parts["activations"] == 10_000 * 410_000 + 40_000 * 1_000 + 5_000_000
    assert found.parts["process"] == 300_000_000
    assert found.parts["vectors"] == 2 * 4 * 1_000_000
    assert found.total == sum(found.parts.values())


def test_only_so_many_chunks_recall_what_they_computed():
    small = plan(rematerialize=True, chunk_tokens=1000).parts["activations"]
    assert small == 1000 * 410_000 + 8 * 1000 * 1_000 + 5_000_000
    compiled = plan(rematerialize=True, chunk_tokens=1000, compile=True).parts["activations"]
    assert compiled == 1000 * 410_000 + 5_000_000


def test_without_rematerialisation_all_tokens_keep_their_activations():
    fixed = 5_000_000 + 1000 * 10_000
    assert plan(chunk_tokens=1000).parts["activations"] == fixed + 50_000 * 400_000
    half = fixed + 25_000 * 400_000 + 8 * 1000 * 1_000
    assert plan(chunk_tokens=1000, rematerialize=0.5).parts["activations"] == half


def test_checkpointing_and_sharding_lower_what_they_should():
    whole = plan(chunk_tokens=1000)
    lean = plan(chunk_tokens=1000, gradient_checkpointing=True)
    assert whole.parts["activations"] - lean.parts["activations"] == 50_000 * 320_000
    assert plan(devices=8).parts["weights"] == whole.parts["weights"]
    assert plan(devices=8, strategy="fsdp").parts["weights"] == whole.parts["weights"] // 8
    two = plan(devices=8, strategy="deepspeed_2")
    assert (two.parts["weights"], two.parts["gradients"]) == (
        whole.parts["weights"],
        whole.parts["gradients"] // 8,
    )
    assert plan(strategy="deepspeed_1", offload=True).parts["optimizer"] == 0


def test_auto_takes_the_largest_chunk_that_fits():
    settings = {"chunk_tokens": "auto", "rematerialize": True}
    assert plan(**settings).chunk_tokens == 65_536
    tight = plan(available=4 * GIB, **settings)
    assert tight.fits
    assert not plan(available=4 * GIB, rematerialize=True, chunk_tokens=2 * tight.chunk_tokens).fits
    hopeless = plan(available=1 * GIB, **settings)
    assert (hopeless.chunk_tokens, hopeless.fits) == (256, False)
    assert plan(device="cpu", **settings).chunk_tokens == 16_384


ERRORS = {
    "GPU": torch.OutOfMemoryError("no room"),
    "torch": RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
    ),
    "numpy": MemoryError("no room"),
}
"""How memory runs out."""


def small_memory(most: int, moment: str = "forward", kind: str = "GPU"):
    """Let the model run out of memory in chunks of more than so many tokens."""
    states = DenseEncoder.states

    def guarded(self, texts, *arguments, **settings):
        full = len(texts.ids) > most
        if full and moment == "forward":
            raise ERRORS[kind]
        found = states(self, texts, *arguments, **settings)
        return Full.apply(found) if full else found

    DenseEncoder.states = guarded
    return states


class Full(torch.autograd.Function):
    """Passes values on and runs out of memory in the backward pass."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise torch.OutOfMemoryError("no room in the backward pass")


@pytest.mark.parametrize(
    ("moment", "kind"),
    [("forward", "GPU"), ("forward", "torch"), ("forward", "numpy"), ("backward", "GPU")],
)
def test_a_batch_that_runs_out_of_memory_is_done_again_in_smaller_chunks(
    moment, kind, toys, alone, capsys
):
    case = Case(double=True).alone
    expected = alone(case)
    states = small_memory(30, moment, kind)
    try:
        found = train_case(case, toys)
    finally:
        DenseEncoder.states = states
    assert relative_error(found, expected) < 1e-9
    assert found["losses"] == expected["losses"]
    assert "Step 0 ran out of memory; it is done again" in capsys.readouterr().err


def train_with_one_small_rank(case, toys):
    if os.environ["RANK"] == "1":
        small_memory(30)
    return train_case(case, toys)


def test_ranks_agree_to_do_a_batch_again_when_one_runs_out_of_memory(toys, alone):
    case = Case(double=True, uneven=True)
    found = on_ranks(2, train_with_one_small_rank, case, toys)
    assert relative_error(found, alone(case)) < 1e-9


def test_what_torch_keeps_and_nobody_uses_is_free(monkeypatch):
    free = {"mem_get_info": (10, 80), "memory_reserved": 50, "memory_allocated": 20}
    for name, number in free.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda number=number: number)
    assert free_bytes("cuda", 1) == 10 + 50 - 20


def test_a_batch_that_never_fits_ends_with_advice(toys):
    states = small_memory(0)
    try:
        with pytest.raises(UserError, match="runs out of memory even with"):
            train_case(Case().alone, toys)
    finally:
        DenseEncoder.states = states
