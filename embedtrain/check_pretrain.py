"""Workflow: what would this pre-training recipe do? Everything but training."""

import time
from dataclasses import dataclass

import torch

from embedtrain.checkpoint import build_pretrained
from embedtrain.data.mixture import Draw
from embedtrain.data.spans import SpanReport
from embedtrain.models.chunking import Execution
from embedtrain.models.masked_autoencoder import MaskedAutoencoder
from embedtrain.plan import plan_pretraining
from embedtrain.pretrain import PretrainData, prepare_text
from embedtrain.pretrain_recipe import PretrainRecipe
from embedtrain.training.planner import Plan

PROBE_TOKENS = 2048
"""Tokens of the measured step: a second or two on a CPU."""


@dataclass(frozen=True)
class PretrainCheck:
    """The recipe, what its text looks like, and what training would take. Seconds are measured and scaled."""

    recipe: PretrainRecipe
    sources: list[tuple[str, SpanReport]]
    num_parameters: int
    num_steps: int
    tokens_per_step: int
    seconds_per_step: float
    plan: Plan


def check_pretraining(recipe: PretrainRecipe) -> PretrainCheck:
    """Load the model, tokenise the text, measure one small step; train nothing.

    Raises:
        UserError: For whatever would stop `embedtrain train`.
    """
    model = build_pretrained(recipe)
    data = prepare_text(recipe, model)
    batch = data.builder(Draw(0, 0, torch.arange(data.rows_per_step).numpy()))
    tokens = int(batch.texts.lengths.sum())
    return PretrainCheck(
        recipe,
        [(source.place, source.report) for source in data.sources],
        sum(parameter.numel() for parameter in model.parameters()),
        data.num_steps,
        tokens,
        _seconds_per_token(model, data) * tokens,
        plan_pretraining(recipe.trainer, model, tokens // recipe.trainer.num_ranks),
    )


def _seconds_per_token(model: MaskedAutoencoder, data: PretrainData) -> float:
    """Time a forward and backward pass over some texts."""
    trainer = data.recipe.trainer
    rows = max(2, PROBE_TOKENS // data.recipe.data.length)
    batch = data.builder(Draw(0, 0, torch.arange(min(rows, data.rows_per_step)).numpy()))
    batch = batch.to(model.encoder.device)
    model.train()
    seconds = []
    for _ in range(2):  # the first run also pays for set-up
        start = time.perf_counter()
        device = model.encoder.device.type
        with torch.autocast(device, torch.bfloat16, enabled=trainer.precision == "bf16"):
            outputs = model(batch, Execution(PROBE_TOKENS))
        data.recipe.objective(outputs).loss.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    return min(seconds) / int(batch.texts.lengths.sum())
