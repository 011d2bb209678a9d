"""A training step on a GPU makes the host wait for nothing; counted on a shadow device."""

from pathlib import Path

import pytest
import torch
from shadow import ShadowCuda
from shadow_step import module_of, pretrain_module_of, random_batch, run_steps

from embedtrain.training.speed import step_counter

WAYS = {
    "plain": {},  # packed, as CUDA is
    "chunked": {"chunk_tokens": 60},
    "rematerialised": {"chunk_tokens": 60, "rematerialize": True},
    "padded": {"model": {"packing": "padded"}},
}
EVERYTHING = {"gradient_clip": 1.0, "accumulate": 2}


def counted(make):
    """Run two steps; return the launches of the second, and its waits with their lines."""
    for knows_lines in (False, True):
        module, *batch = make()
        with ShadowCuda(knows_lines=knows_lines) as shadow:
            steps = run_steps(shadow, module, *batch)[module.config.accumulate :]
        if not any(step.waits for step in steps):
            return sum(step.launches.total() for step in steps), ""
    return 0, "\n".join(map(shadow.report, steps))


@pytest.mark.parametrize(  # what stands alone is part of everything, what waits in fp32 waits in bf16
    ("everything", "precision"),
    [
        pytest.param(False, "fp32", marks=pytest.mark.prove),
        pytest.param(False, "bf16", marks=pytest.mark.prove),
        pytest.param(True, "fp32", marks=pytest.mark.prove),
        (True, "bf16"),
    ],
    ids=["alone-fp32", "alone-bf16", "everything-fp32", "everything-bf16"],
)
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        *(("dense", way) for way in WAYS),
        ("late_interaction", "plain"),
        *(
            pytest.param("late_interaction", way, marks=pytest.mark.prove)
            for way in WAYS
            if way != "plain"
        ),
    ],
)
def test_a_step_never_waits_for_the_device(bert, kind, way, precision, everything, record_property):
    settings = {"precision": precision} | WAYS[way]
    if everything:
        learned = {"learn_temperature": 0.05 if kind == "dense" else 1.0}
        settings |= EVERYTHING | {"model": settings.get("model", {}) | learned}
    launches, waits = counted(lambda: (module_of(bert, kind, **settings),))
    record_property("launches", [launches, "yes" if waits else "no"])
    assert not waits, waits


@pytest.mark.parametrize("alike", [False, True], ids=["ragged", "alike"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_padded_texts_make_nobody_wait_whatever_their_lengths(family, alike, request):
    """Without a mask transformers looks for texts that a decoder's positions hide."""
    backbone = request.getfixturevalue(family)
    settings = {"precision": "fp32", "chunk_tokens": 96, "model": {"packing": "padded"}}
    _, waits = counted(
        lambda: (
            module_of(backbone, "dense", **settings), lambda seed: random_batch(seed, alike=alike)
        )
    )  # fmt: skip
    assert not waits, waits


def test_counting_operations_decides_nothing_about_packing_again(bert):
    """It is asked outside of the step, where autocast is off and another answer would be another check."""
    module = module_of(bert, "dense", precision="bf16")
    with ShadowCuda(knows_lines=False) as shadow:
        run_steps(shadow, module)
        decided = dict(module.model._packed_is_exact)
        assert step_counter(module)(random_batch().to("cuda")).tokens > 0
    assert module.model._packed_is_exact == decided


@pytest.mark.parametrize(  # DupMAE is RetroMAE and a bag of words; the others are left to the slow proofs
    ("name", "again"),
    [
        pytest.param(
            name, again, id=f"{name}-{'rematerialised' if again else 'plain'}",
            marks=[] if (name, again) in {("mlm", False), ("dupmae", True)} else pytest.mark.prove,
        )
        for name in ("mlm", "retromae", "dupmae", "cot_mae", "condenser")
        for again in (False, True)
    ],
)  # fmt: skip
def test_a_step_of_pretraining_never_waits_either(bert, name, again, record_property):
    chunks = {"chunk_tokens": 30, "rematerialize": True} if again else {}
    launches, waits = counted(lambda: pretrain_module_of(bert, name, precision="bf16", **chunks))
    record_property("launches", [launches, "yes" if waits else "no"])
    assert not waits, waits


def test_a_question_to_the_device_is_found_with_its_line(bert, monkeypatch):
    module = module_of(bert, "dense", precision="fp32")
    loss = module.loss

    def ask(batch):
        found = loss(batch)
        found.item()  # planted
        return found

    monkeypatch.setattr(module, "loss", ask)
    with ShadowCuda(user=("test_no_waits",)) as shadow:
        *_, step = run_steps(shadow, module)
    ((what, place),) = step.waits
    path, _, line = place.rpartition(":")
    assert what == "_local_scalar_dense"
    assert Path(path).read_text().splitlines()[int(line) - 1].endswith("# planted")


def test_the_line_of_a_mask_is_blamed_for_its_backward_pass_as_well():
    with ShadowCuda(user=("test_no_waits",)) as shadow:
        values = torch.ones(4, device="cuda").requires_grad_()
        mask = torch.ones(4, dtype=torch.bool, device="cuda")
        with shadow.step() as step:
            values[mask].sum().backward()  # planted
    forward, backward = sorted(step.waits, key=lambda one: "backward" in one[1])
    assert forward[0] == "index by a boolean mask"
    assert backward[1] == f"backward of {forward[1]}"


def test_operands_on_different_devices_are_refused():
    with ShadowCuda(), pytest.raises(RuntimeError, match="found cuda:0 and cpu"):
        torch.ones(2, device="cuda") + torch.ones(2)


def test_bf16_keeps_norms_in_float32_as_cuda_does():
    with ShadowCuda() as shadow, torch.autocast("cuda", torch.bfloat16):
        half = shadow.move(torch.nn.Linear(8, 8))(torch.ones(1, 8, device="cuda"))
        assert half.dtype == torch.bfloat16
        assert torch.nn.functional.layer_norm(half, (8,)).dtype == torch.float32


def test_dropout_of_a_chunk_that_is_encoded_again_is_that_of_its_first_time(bert_with_dropout):
    module = module_of(
        bert_with_dropout, "dense", precision="fp32", chunk_tokens=60, rematerialize=True
    )
    with ShadowCuda(knows_lines=False) as shadow:
        run_steps(shadow, module, count=1)
    assert shadow.saved_states > 0
    assert shadow.replayed_states >= shadow.saved_states, "each state kept is set again"


def test_a_step_that_logs_asks_once_beside_the_singular_values(bert):
    module = module_of(bert, "dense", precision="fp32", log_every=1)
    with ShadowCuda(knows_lines=False) as shadow:
        *_, step = run_steps(shadow, module)
    assert sorted(what for what, _ in step.waits.elements()) == ["_linalg_svd", "copy to the host"]
