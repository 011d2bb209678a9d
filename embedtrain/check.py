"""Workflow: what would this recipe do? Everything but training."""

import time
from dataclasses import dataclass

import psutil
import torch

from embedtrain.check_pretrain import PretrainCheck, check_pretraining
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.mixture import Draw
from embedtrain.data.tokenized import SourceReport
from embedtrain.models.build import build_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.encoder import TextEncoder
from embedtrain.prepare import prepare, with_contract
from embedtrain.pretrain_recipe import PretrainRecipe
from embedtrain.recipe import AnyRecipe, Recipe
from embedtrain.types import Texts

PROBE_TOKENS = 2048
"""Tokens of the measured forward and backward pass: a second or two on a CPU."""


@dataclass(frozen=True)
class Estimate:
    """What training would take on this machine. Bytes are arithmetic, seconds are measured and scaled."""

    num_steps: int
    tokens_per_step: int
    seconds_per_step: float
    parameter_bytes: int
    """Weights, gradients and the two moments of AdamW, all float32."""
    activation_bytes: int
    """Kept for the backward pass: of one chunk if rematerialised, else of the whole batch."""
    available_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the estimate is below nine tenths of the memory that is free now."""
        return self.parameter_bytes + self.activation_bytes < 0.9 * self.available_bytes


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
    return CheckReport(
        recipe,
        [(source.place, source.report) for source in sources],
        _estimate(model, recipe, Texts(ids, lengths), num_rows),
    )


def _estimate(model: TextEncoder, recipe: Recipe, texts: Texts, num_rows: int) -> Estimate:
    trainer = recipe.trainer
    tokens = int(texts.lengths.sum())
    again = float(trainer.rematerialize)
    kept = max(min(tokens, trainer.chunk_tokens), round((1 - again) * tokens))
    seconds = _seconds_per_token(model, texts, bf16=trainer.precision == "bf16") * tokens
    parameters = sum(parameter.numel() for parameter in model.parameters())
    width = 2 if trainer.precision == "bf16" else 4
    return Estimate(
        num_steps=trainer.num_steps(num_rows),
        tokens_per_step=tokens,
        seconds_per_step=seconds * (1 + again / 4),
        parameter_bytes=16 * parameters,
        activation_bytes=kept * activations_per_token(model) * width,
        available_bytes=_available_bytes(),
    )


def activations_per_token(model: TextEncoder) -> int:
    """Count the numbers that a transformer keeps per token for its backward pass.

    Per layer: queries, keys, values, attention output, two norms with their inputs and two residual sums
    (9 widths) and the feed-forward layer before and after its activation (2 inner widths). Attention keeps
    no score matrix.
    """
    config = model.backbone.config
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(config.num_hidden_layers * (9 * config.hidden_size + 2 * inner))


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


def _available_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)
