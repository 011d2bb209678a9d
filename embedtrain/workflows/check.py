"""Workflow: what would this recipe do? Everything but training."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from embedtrain.data.batches import BatchBuilder
from embedtrain.data.mixture import Cut, Draw
from embedtrain.data.pretraining.spans import SpanReport
from embedtrain.data.tokenized import SourceReport
from embedtrain.models.build import build_model
from embedtrain.models.chunking import Execution
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoder
from embedtrain.models.text_model import TextModel
from embedtrain.packed import Texts
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import AnyRecipe, Recipe
from embedtrain.recipe.run_folder import build_pretrained
from embedtrain.training.devices import Device, device_of_key
from embedtrain.training.flops import pretraining_counter, retrieval_counter
from embedtrain.training.planner import Plan, plan_retrieval
from embedtrain.training.settings import TrainerConfig
from embedtrain.workflows.automatic import with_automatic
from embedtrain.workflows.prediction import Prediction, predict
from embedtrain.workflows.prepare import prepare, with_contract, with_machine
from embedtrain.workflows.pretrain import PretrainData, prepare_text

PROBE_TOKENS = 2048
"""Tokens of the measured forward and backward pass on a GPU, which fewer would not fill."""
CPU_PROBE_TOKENS = 512
"""And on a CPU: a short pass may find a moment in which nobody else computes."""
PASSES = (2, 12)
"""Passes at least, and at most."""
PROBE_SECONDS = 4.0
"""No more passes after so long."""


@dataclass(frozen=True)
class Estimate:
    """What training would take here. Bytes are arithmetic; seconds are measured on one device and scaled."""

    num_steps: int
    tokens_per_step: int
    seconds_per_step: float
    num_parameters: int
    plan: Plan
    """Memory of one device at the peak."""


@dataclass(frozen=True)
class CheckReport:
    """The resolved recipe, what its data look like, and what training would take."""

    recipe: AnyRecipe
    sources: Sequence[tuple[str, SourceReport | SpanReport]]
    estimate: Estimate
    held_out: list[str]
    """What ``fraction`` keeps out of training, a sentence for each section."""
    prediction: Prediction | None = None
    """What training would take on a device that was asked about."""


def check(recipe: AnyRecipe, device: str | None = None) -> CheckReport:
    """Load the model, tokenise the data, measure one small step; train nothing.

    Args:
        recipe: What would be trained.
        device: A key of the table of devices, to predict what training would take on it.

    Raises:
        UserError: For whatever would stop `embedtrain train`, or for a device that is not in the table.
    """
    asked = None if device is None else device_of_key(device)
    if isinstance(recipe, PretrainRecipe):
        return _check_pretraining(recipe, asked)
    model = build_model(recipe.model, recipe.trainer.accelerator)
    precision = recipe.trainer.precision
    recipe = with_machine(with_contract(recipe, model), model)
    prepared = prepare(recipe, model.tokenization)
    recipe = with_automatic(recipe, model, prepared)
    there = _on_a_gpu(recipe.trainer.model_copy(update={"precision": precision}))
    sources = prepared.sources
    builder = BatchBuilder.of(recipe.data, sources)
    size = recipe.data.batch_sizes(recipe.trainer.batch_size)[0]
    whole = Draw(0, 0, torch.arange(size).numpy())
    batch = builder(whole)
    num_rows = sum(len(source) for source in sources)
    trainer = recipe.trainer
    share = builder(Cut(trainer.accumulate, 0, trainer.num_ranks).part(whole, 0))
    plan = plan_retrieval(trainer, model, share)
    prediction = None
    if asked is not None:
        elsewhere = plan_retrieval(there, model, share, asked)
        count = retrieval_counter(model, num_ranks=there.num_ranks)
        work = count(share, _execution(there, elsewhere), recipe.objectives[0])
        prediction = predict(asked, work, model, model.backbone, elsewhere, there)
    return CheckReport(
        recipe,
        [(source.place, source.report) for source in sources],
        _estimate(model, recipe, model.texts_of(batch), num_rows, plan),
        prepared.held_out,
        prediction,
    )


def _on_a_gpu(trainer: TrainerConfig) -> TrainerConfig:
    """Return the settings as a GPU of the table resolves them."""
    precision = "fp32" if trainer.precision == "fp32" else "bf16"
    return trainer.model_copy(update={"precision": precision})


def _execution(trainer: TrainerConfig, plan: Plan) -> Execution:
    return Execution(plan.chunk_tokens, trainer.rematerialize, recall=not trainer.compile)


def _estimate(
    model: TextModel, recipe: Recipe, texts: Texts, num_rows: int, plan: Plan
) -> Estimate:
    trainer = recipe.trainer
    tokens = int(texts.lengths.sum())
    again = float(trainer.rematerialize)
    seconds = _seconds_per_token(model, texts, bf16=trainer.precision == "bf16") * tokens
    return Estimate(
        num_steps=trainer.num_steps(num_rows),
        tokens_per_step=tokens,
        seconds_per_step=seconds * (1 + again / 4) / trainer.num_ranks,
        num_parameters=_num_parameters(model),
        plan=plan,
    )


def _seconds_per_token(model: TextModel, texts: Texts, *, bf16: bool) -> float:
    """Time a forward and backward pass over some of the batch's texts."""
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    budget = CPU_PROBE_TOKENS if model.device.type == "cpu" else PROBE_TOKENS
    within = texts.lengths[order].cumsum(0) <= budget
    probe = texts.select(order[: max(1, int(within.sum()))]).to(model.device)

    def loss() -> Tensor:
        return model.values(probe, Execution(PROBE_TOKENS)).square().sum()

    return _seconds(model, loss, model.device.type, bf16=bf16) / int(probe.lengths.sum())


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _check_pretraining(recipe: PretrainRecipe, asked: Device | None) -> CheckReport:
    model = build_pretrained(recipe)
    there = _on_a_gpu(recipe.trainer)
    recipe = with_machine(recipe, model)
    data = prepare_text(recipe, model)
    batch = data.builder(Draw(0, 0, torch.arange(data.rows_per_step).numpy()))
    tokens = int(batch.texts.lengths.sum())
    estimate = Estimate(
        data.num_steps,
        tokens,
        _seconds_per_masked_token(model, data) * tokens,
        _num_parameters(model),
        data.plan(model, tokens // recipe.trainer.num_ranks),
    )
    prediction = None
    if asked is not None:
        moved = replace(data, recipe=recipe.model_copy(update={"trainer": there}))
        elsewhere = moved.plan(model, tokens // there.num_ranks, asked)
        masking = recipe.objective.masking
        count = pretraining_counter(model, masking.encoder_ratio, masking.decoder_ratio)
        rows = data.rows_per_step // (there.num_ranks * there.accumulate)
        share = data.builder(Draw(0, 0, torch.arange(rows).numpy()))
        work = count(share, _execution(there, elsewhere))
        prediction = predict(asked, work, model, model.encoder.backbone, elsewhere, there)
    sources: list[tuple[str, SourceReport | SpanReport]] = [
        (one.place, one.report) for one in data.sources
    ]
    return CheckReport(recipe, sources, estimate, [], prediction)


def _seconds_per_masked_token(model: MaskedAutoencoder, data: PretrainData) -> float:
    """Time a forward and backward pass over some texts."""
    device = model.encoder.device
    batch = data.few(PROBE_TOKENS // data.recipe.data.length).to(device)

    def loss() -> Tensor:
        return data.recipe.objective(model(batch, Execution(PROBE_TOKENS))).loss

    bf16 = data.recipe.trainer.precision == "bf16"
    return _seconds(model, loss, device.type, bf16=bf16) / int(batch.texts.lengths.sum())


def _seconds(model: nn.Module, loss: Callable[[], Tensor], device: str, *, bf16: bool) -> float:
    """Time a forward and backward pass; the fastest of some, since the first pays for set-up and others are disturbed."""
    model.train()
    seconds: list[float] = []
    least, most = PASSES
    while len(seconds) < least or (len(seconds) < most and sum(seconds) < PROBE_SECONDS):
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    return min(seconds)
