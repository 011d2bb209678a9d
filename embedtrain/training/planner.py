"""Plan the memory of a step before it runs, and choose how many tokens are encoded at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn

from embedtrain.models.encoder import TextEncoder
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoder
from embedtrain.progress import console
from embedtrain.training.settings import TrainerConfig
from embedtrain.types import RetrievalBatch
from embedtrain.units import show_bytes

FEWEST_TOKENS = 256
USABLE = 0.8
"""Share of the free memory that a plan may use: the rest is for what no arithmetic counts."""
LARGEST_CHUNK = {"cpu": 16_384, "cuda": 65_536}
"""Larger chunks are no faster."""


@dataclass(frozen=True)
class Shape:
    """What of a model and a batch decides the memory of one rank.

    Attributes:
        parameters: Weights, and those of them that are trained.
        trained: See ``parameters``.
        per_token: Numbers that one token keeps for the backward pass.
        per_token_checkpointed: The same where only each layer's input is kept.
        tokens: Tokens of this rank's part of a micro-batch.
        vectors: Numbers of all ranks' document vectors, and this rank's query vectors.
    """

    parameters: int
    trained: int
    per_token: int
    per_token_checkpointed: int
    tokens: int
    vectors: int


TOO_LARGE = (
    "\nThis may not fit. Set trainer.rematerialize=true, lower trainer.chunk_tokens, use more "
    "trainer.devices or a strategy that shards more"
)


@dataclass(frozen=True)
class Plan:
    """Bytes of one rank at the peak of a step; arithmetic, not measured."""

    chunk_tokens: int
    parts: Mapping[str, int]
    """Of weights, gradients, optimizer, activations and vectors."""
    available: int

    @property
    def total(self) -> int:
        """The peak."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the peak stays below the usable part of the free memory."""
        return self.total <= USABLE * self.available


def plan_memory(config: TrainerConfig, shape: Shape, available: int, device: str) -> Plan:
    """Return the plan of a step; where ``chunk_tokens`` is auto, with the largest chunk that fits.

    Chunks are tried from the largest down by halves; where none fits, the smallest is planned. Without
    rematerialisation all tokens keep their activations, whatever the chunk.
    """
    if config.chunk_tokens != "auto":
        return _plan(config, shape, available, config.chunk_tokens)
    chunk = LARGEST_CHUNK.get(device, LARGEST_CHUNK["cuda"])
    plan = _plan(config, shape, available, chunk)
    while not plan.fits and chunk > FEWEST_TOKENS:
        chunk //= 2
        plan = _plan(config, shape, available, chunk)
    return plan


def _plan(config: TrainerConfig, shape: Shape, available: int, chunk: int) -> Plan:
    name, ranks = config.strategy, config.num_ranks
    stage = 3 if name == "fsdp" else int(name[-1]) if name.startswith("deepspeed") else 0
    width = 2 if config.precision == "bf16" else 4
    again = float(config.rematerialize)
    kept = max(min(shape.tokens, chunk), round((1 - again) * shape.tokens))
    per_token = shape.per_token_checkpointed if config.gradient_checkpointing else shape.per_token
    moments = 8 * shape.trained // (ranks if stage else 1)
    master = 4 * shape.trained // ranks if name.startswith("deepspeed") else 0
    parts = {
        "weights": 4 * shape.parameters // (ranks if stage == 3 else 1),
        "gradients": 4 * shape.trained // (ranks if stage >= 2 else 1),
        "optimizer": 0 if config.offload else moments + master,
        "activations": 0 if config.activation_offload else kept * per_token * width,
        "vectors": 2 * 4 * shape.vectors,
    }
    return Plan(chunk, parts, available)


def plan_retrieval(config: TrainerConfig, model: TextEncoder, batch: RetrievalBatch) -> Plan:
    """Plan a step on batches like this part of a micro-batch, one rank's."""
    lengths = batch.queries.lengths, batch.documents.lengths
    tokens = sum(int(part.sum()) for part in lengths)
    several = not hasattr(model.contract, "pooling")  # one vector per token
    queries = int(lengths[0].sum()) if several else len(batch.query_rows)
    documents = int(lengths[1].sum()) if several else len(batch.document_rows)
    vectors = (queries + config.num_ranks * documents) * model.dim
    return _plan_model(config, model, model.backbone, tokens, vectors)


def plan_pretraining(config: TrainerConfig, model: MaskedAutoencoder, tokens: int) -> Plan:
    """Plan a step of pre-training on so many tokens of one rank."""
    return _plan_model(config, model, model.encoder.backbone, tokens, 0)


def announce(config: TrainerConfig, plan: Plan) -> TrainerConfig:
    """Print a plan and return the settings with its chunks."""
    console.print(describe(plan))
    return config.model_copy(update={"chunk_tokens": plan.chunk_tokens})


def describe(plan: Plan) -> str:
    """Return a plan in a line, and what to do in another where it may not fit."""
    parts = ", ".join(f"{name} {show_bytes(size)}" for name, size in plan.parts.items())
    return (
        f"Memory of each device, by arithmetic: {show_bytes(plan.total)} of {show_bytes(plan.available)} "
        f"free ({parts}); {plan.chunk_tokens:,} tokens at once"
    ) + ("" if plan.fits else TOO_LARGE)


def activations_per_token(backbone: Any) -> int:  # noqa: ANN401 - transformers is untyped
    """Count the numbers that a transformer keeps per token for its backward pass.

    Per layer: queries, keys, values, attention output, two norms with their inputs and two residual sums
    (9 widths) and the feed-forward layer before and after its activation (2 inner widths). Attention keeps
    no score matrix.
    """
    return int(backbone.config.num_hidden_layers * _per_layer(backbone.config))


def _per_layer(config: Any) -> int:  # noqa: ANN401
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(9 * config.hidden_size + 2 * inner)


def _plan_model(
    config: TrainerConfig,
    model: nn.Module,
    backbone: Any,  # noqa: ANN401
    tokens: int,
    vectors: int,
) -> Plan:
    parameters = list(model.parameters())
    layers = backbone.config.num_hidden_layers
    shape = Shape(
        parameters=sum(parameter.numel() for parameter in parameters),
        trained=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        per_token=activations_per_token(backbone),
        per_token_checkpointed=layers * backbone.config.hidden_size + _per_layer(backbone.config),
        tokens=tokens,
        vectors=vectors,
    )
    device = parameters[0].device.type
    return plan_memory(config, shape, free_bytes(device, config.devices), device)


def free_bytes(device: str, processes: int) -> int:
    """Return the free memory of a device; that of the machine is shared by its processes."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available) // processes
