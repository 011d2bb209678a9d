"""Workflow: what would this recipe do? Everything but training."""

import time
from dataclasses import dataclass

import torch

from embedtrain.check_pretrain import PretrainCheck, check_pretraining
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.mixture import Draw
from embedtrain.data.tokenized import SourceReport
from embedtrain.models.build import build_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.encoder import TextEncoder
from embedtrain.plan import plan_retrieval
from embedtrain.prepare import prepare, with_contract
from embedtrain.pretrain_recipe import PretrainRecipe
from embedtrain.recipe import AnyRecipe, Recipe
from embedtrain.training.planner import Plan
from embedtrain.types import Texts

PROBE_TOKENS = 2048
"""Tokens of the measured forward and backward pass: a second or two on a CPU."""


@dataclass(frozen=True)
class Estimate:
    """What training would take here. Bytes are arithmetic; seconds are measured on one device and scaled."""

    num_steps: int
    tokens_per_step: int
    seconds_per_step: float
    plan: Plan
    """Memory of one device at the peak."""


@dataclass(frozen=True)
class CheckReport:
    """The resolved recipe, what its data look like, and what training would take."""

    recipe: Recipe
    sources: list[tuple[str, SourceReport]]
    estimate: Estimate


def check(recipe: AnyRecipe) -> CheckReport | PretrainCheck:
    """Load the model, tokenise the data, measure one small step; train nothing.

    Raises:
        UserError: For whatever would stop `embedtrain train`.
    """
    if isinstance(recipe, PretrainRecipe):
        return check_pretraining(recipe)
    model = build_encoder(recipe.model, recipe.trainer.accelerator)
    recipe = with_contract(recipe, model)
    sources = prepare(recipe, model.tokenization).sources
    builder = BatchBuilder(
        sources, num_positives=recipe.data.num_positives, num_negatives=recipe.data.num_negatives
    )
    size = recipe.data.batch_sizes(recipe.trainer.batch_size)[0]
    batch = builder(Draw(0, 0, torch.arange(size).numpy()))
    lengths = torch.cat([batch.queries.lengths, batch.documents.lengths])
    ids = torch.cat([batch.queries.ids, batch.documents.ids])
    num_rows = sum(len(source) for source in sources)
    trainer = recipe.trainer
    whole = Draw(0, 0, torch.arange(size).numpy())
    share = builder(whole.part(0, trainer.accumulate).part(0, trainer.num_ranks))
    plan = plan_retrieval(trainer, model, share)
    return CheckReport(
        recipe,
        [(source.place, source.report) for source in sources],
        _estimate(model, recipe, Texts(ids, lengths), num_rows, plan),
    )


def _estimate(
    model: TextEncoder, recipe: Recipe, texts: Texts, num_rows: int, plan: Plan
) -> Estimate:
    trainer = recipe.trainer
    tokens = int(texts.lengths.sum())
    again = float(trainer.rematerialize)
    seconds = _seconds_per_token(model, texts, bf16=trainer.precision == "bf16") * tokens
    return Estimate(
        num_steps=trainer.num_steps(num_rows),
        tokens_per_step=tokens,
        seconds_per_step=seconds * (1 + again / 4) / trainer.num_ranks,
        plan=plan,
    )


def _seconds_per_token(model: TextEncoder, texts: Texts, *, bf16: bool) -> float:
    """Time a forward and backward pass over some of the batch's texts."""
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    within = texts.lengths[order].cumsum(0) <= PROBE_TOKENS
    probe = texts.select(order[: max(1, int(within.sum()))])
    seconds = []
    model.train()
    for _ in range(2):  # the first run also pays for set-up
        start = time.perf_counter()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            embeddings = model.embed(probe.to(model.device), Execution(PROBE_TOKENS))
        vectors = embeddings if isinstance(embeddings, torch.Tensor) else embeddings.tokens
        vectors.square().sum().backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    return min(seconds) / int(probe.lengths.sum())
