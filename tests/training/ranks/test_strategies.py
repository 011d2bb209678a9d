"""Every strategy trains as one process does; `scripts/check_distributed.py` runs the whole table."""

import importlib.util
import warnings
from contextlib import suppress

import pytest
from check_distributed import BOUNDS
from distributed_cases import Case, on_ranks, relative_error, train_case
from pydantic import ValidationError

from embedtrain.errors import UserError
from embedtrain.training.fitting import Start
from embedtrain.training.ranks.processes import must_launch
from embedtrain.training.ranks.strategies import check_strategy
from embedtrain.training.settings import TrainerConfig

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is an extra"
)
slow_deepspeed = (needs_deepspeed, pytest.mark.prove)
HARD = {"chunked": True, "accumulate": 2, "uneven": True, "clip": 0.05}
DECOUPLED = "{name: info_nce, several_positives: decoupled}"
CASES = [
    Case("dense", "ddp", 4, **HARD, double=True),
    pytest.param(Case("late_interaction", "ddp", 2, **HARD, double=True), marks=pytest.mark.prove),
    pytest.param(Case("masked", "ddp", 4, **HARD, double=True), marks=pytest.mark.prove),
    # Queries of one document share its chunks, on one rank.
    Case("in_context", "ddp", 2, chunked=True, uneven=True, double=True),
    Case("situated", "ddp", 2, chunked=True, uneven=True, double=True),
    Case("late_chunks", "ddp", 2, chunked=True, uneven=True, double=True),
    Case("nugget", "ddp", 2, chunked=True, uneven=True, double=True),
    # An objective that does not use the temperature that the model learns.
    Case("dense", "ddp", 2, uneven=True, double=True, objective="{name: triplet}"),
    # All documents are candidates, and each rank encodes a part of them.
    Case("dense", "ddp", 2, **HARD, double=True, objective=DECOUPLED, data="{candidates: all}"),
    pytest.param(
        Case("dense", "ddp", 3, **HARD, double=True, objective=DECOUPLED, data="{candidates: all}"),
        marks=pytest.mark.prove,
    ),
    pytest.param(Case("dense", "fsdp", 2, **HARD, double=True), marks=pytest.mark.prove),
    Case("masked", "fsdp", 2, **HARD, double=True),
    pytest.param(Case("dense", "deepspeed_1", 2, **HARD), marks=slow_deepspeed),
    pytest.param(Case("late_interaction", "deepspeed_2", 2, **HARD), marks=slow_deepspeed),
    pytest.param(Case("masked", "deepspeed_2", 2, **HARD), marks=slow_deepspeed),
    # Ranks whose texts would make unequal chunks: ZeRO 2 mixed up their gradients.
    pytest.param(Case("dense", "deepspeed_2", 4, **HARD), marks=needs_deepspeed),
    pytest.param(Case("dense", "deepspeed_3", 2, uneven=True, chunked=True), marks=slow_deepspeed),
]


@pytest.fixture(scope="module", autouse=True)
def imported_once():
    """What DDP and DeepSpeed import when they begin: half of a rank's time, where each does it anew."""
    names = (
        "pandas",
        "torch._inductor.compile_fx",
        "torch.distributed.algorithms.ddp_comm_hooks",
        "deepspeed.comm.mori",
        "deepspeed.module_inject.auto_ep_layer",
        "deepspeed.ops.op_builder.all_ops",
        "deepspeed.runtime.zero.muon.muon_optimizer",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the ranks, which warn nobody
        for name in names:
            with suppress(ImportError):  # an extra, or a part that another release lacks
                importlib.import_module(name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.model}-{case.strategy}")
def test_ranks_train_as_one_process_does(case, toys, alone):
    expected = alone(case)
    found = on_ranks(case.ranks, train_case, case, toys)
    assert relative_error(found, expected) <= BOUNDS[case.double]
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)


def test_the_comparison_sees_a_wrong_factor(toys, alone):
    case = Case(double=True)
    right, wrong = alone(case), on_ranks(2, train_with_wrong_factor, case, toys)
    assert relative_error(wrong, right) > 1e-3


def train_with_wrong_factor(case, toys):
    from embedtrain.training.module import RetrievalModule

    of_ranks = RetrievalModule.loss
    RetrievalModule.loss = lambda self, batch: of_ranks(self, batch) / 2
    return train_case(case, toys)


def test_a_step_of_any_number_of_chunks_costs_one_gather_and_one_reduce_scatter(toys):
    found = on_ranks(2, train_case, Case(chunked=True), toys)
    names = [name for name, _ in found["traffic"]]
    # The first gather of each step is of a few numbers: how many rows each rank holds.
    assert names == ["all_gather", "all_gather", "reduce_scatter"] * 3
    assert max(size for _, size in found["traffic"][::3]) <= 100


@needs_deepspeed
@pytest.mark.parametrize(
    "after",
    [*(pytest.param(name, marks=pytest.mark.prove) for name in ("fsdp", "deepspeed_3")), "single"],
)
def test_a_checkpoint_of_one_strategy_goes_on_with_another_and_other_ranks(after, toys, alone):
    first = Case(strategy="deepspeed_2", uneven=True)
    stopped = on_ranks(2, train_case, first, toys, None, 2)
    second = Case(strategy=after, ranks=1 if after == "single" else 3, uneven=True)
    arguments = second, toys, Start(2, stopped["path"])
    found = train_case(*arguments) if after == "single" else on_ranks(3, train_case, *arguments)
    assert found["losses"][-1] == pytest.approx(alone(first)["losses"][-1], rel=1e-5)
    assert relative_error(found, alone(first)) <= 1e-5


@needs_deepspeed
@pytest.mark.parametrize(
    "settings",
    [
        "{gradient_checkpointing: true}",
        pytest.param("{offload: true}", marks=pytest.mark.prove),
        pytest.param("{precision: bf16}", marks=pytest.mark.prove),
    ],
)
def test_options_train_under_zero_as_alone(settings, toys):
    case = Case(strategy="deepspeed_2", trainer=settings)
    alone = Case(strategy="single", ranks=1, trainer=settings.replace("offload: true", ""))
    expected = train_case(alone, toys)
    bound = 3e-2 if "bf16" in settings else 1e-5
    assert relative_error(on_ranks(2, train_case, case, toys), expected) <= bound


@needs_deepspeed
@pytest.mark.parametrize(
    ("model", "strategy"),
    [
        pytest.param("lora", "ddp", marks=pytest.mark.prove),
        pytest.param("lora", "deepspeed_3", marks=pytest.mark.prove),
        ("lora", "fsdp"),
        pytest.param("interaction", "ddp", marks=pytest.mark.prove),
        ("interaction", "deepspeed_2"),
        pytest.param("interaction", "fsdp", marks=pytest.mark.prove),
        pytest.param("pair_classes", "deepspeed_3", marks=pytest.mark.prove),
        ("pair_classes", "fsdp"),
        ("query_network", "ddp"),
        ("query_codes", "ddp"),
    ],
)
def test_frozen_backbones_and_heads_outside_the_encoder_train_as_alone(model, strategy, toys):
    double = not strategy.startswith("deepspeed")
    case = Case(model, strategy, chunked=True, double=double)
    expected = train_case(case.alone, toys)
    assert relative_error(on_ranks(2, train_case, case, toys), expected) <= (
        1e-9 if double else 1e-5
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"strategy": "single", "devices": 2}, "single has one device"),
        ({"offload": True}, "offload needs strategy deepspeed"),
        ({"compile": True, "strategy": "fsdp", "devices": 2}, "needs strategy single or ddp"),
        ({"compile": True, "gradient_checkpointing": True}, "compile goes with rematerialize"),
        ({"batch_size": 9, "accumulate": 2}, "no multiple of accumulate"),
        ({"batch_size": 4, "devices": 8}, "cannot be shared by 8 devices"),
        ({"strategy": "zero"}, "deepspeed_3"),
    ],
)
def test_wishes_that_cannot_be_combined_are_refused(settings, problem):
    with pytest.raises(ValidationError, match=problem):
        TrainerConfig(steps=1, **settings)


def test_what_a_strategy_cannot_train_is_refused_before_it_starts():
    with pytest.raises(UserError, match="does not fit a masked autoencoder"):
        check_strategy(TrainerConfig(steps=1, strategy="deepspeed_3"), pretrains=True)
    with pytest.raises(UserError, match="one device and one batch per step"):
        check_strategy(TrainerConfig(steps=1, devices=2), pretrains=False, refreshes=True)
    with pytest.raises(UserError, match=r"does not fit model\.interaction"):
        check_strategy(
            TrainerConfig(steps=1, strategy="deepspeed_3"), pretrains=False, has_interaction=True
        )
    with pytest.raises(UserError, match="cannot be cut into 2 micro-batches"):
        check_strategy(TrainerConfig(steps=1, accumulate=2), pretrains=False, batch_sizes=[64, 9])
    with pytest.raises(UserError, match="there is no GPU"):
        check_strategy(TrainerConfig(steps=1, activation_offload=True), pretrains=False)


def test_torchrun_must_start_as_many_processes_as_the_recipe_names(monkeypatch):
    assert must_launch(TrainerConfig(steps=1, devices=2))
    assert not must_launch(TrainerConfig(steps=1))
    with pytest.raises(UserError, match=r"trainer.nodes is more .* torchrun --nnodes 2"):
        must_launch(TrainerConfig(steps=1, nodes=2))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not must_launch(TrainerConfig(steps=1, devices=2, nodes=2))
    with pytest.raises(UserError, match="torchrun started 4 processes"):
        must_launch(TrainerConfig(steps=1, devices=2))
