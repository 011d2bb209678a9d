"""Workflow: how much memory will a step of this recipe take, and how many tokens fit at once?"""

from typing import Any

import psutil
import torch
from torch import nn

from embedtrain.models.encoder import TextEncoder
from embedtrain.models.masked_autoencoder import MaskedAutoencoder
from embedtrain.progress import console
from embedtrain.training.planner import Plan, Shape, plan_memory
from embedtrain.training.settings import TrainerConfig
from embedtrain.types import RetrievalBatch

GIB = 2**30


def plan_retrieval(config: TrainerConfig, model: TextEncoder, batch: RetrievalBatch) -> Plan:
    """Plan a step on batches like this part of a micro-batch, one rank's."""
    lengths = batch.queries.lengths, batch.documents.lengths
    tokens = sum(int(part.sum()) for part in lengths)
    several = not hasattr(model.contract, "pooling")  # one vector per token
    queries = int(lengths[0].sum()) if several else len(batch.query_rows)
    documents = int(lengths[1].sum()) if several else len(batch.document_rows)
    vectors = (queries + config.num_ranks * documents) * model.dim
    return _plan(config, model, model.backbone, tokens, vectors)


def plan_pretraining(config: TrainerConfig, model: MaskedAutoencoder, tokens: int) -> Plan:
    """Plan a step of pre-training on so many tokens of one rank."""
    return _plan(config, model, model.encoder.backbone, tokens, 0)


def announce(config: TrainerConfig, plan: Plan) -> TrainerConfig:
    """Print a plan and return the settings with its chunks."""
    console.print(describe(plan))
    if not plan.fits:
        console.print(
            "This may not fit. Set trainer.rematerialize=true, lower trainer.chunk_tokens, use more "
            "trainer.devices or a strategy that shards more"
        )
    return config.model_copy(update={"chunk_tokens": plan.chunk_tokens})


def describe(plan: Plan) -> str:
    """Return a plan in a line."""
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in plan.parts.items())
    return (
        f"Memory of each device, by arithmetic: {plan.total / GIB:.2f} of {plan.available / GIB:.1f} GiB "
        f"free ({parts}); {plan.chunk_tokens:,} tokens at once"
    )


def activations_per_token(backbone: Any) -> int:  # noqa: ANN401 - transformers is untyped
    """Count the numbers that a transformer keeps per token for its backward pass.

    Per layer: queries, keys, values, attention output, two norms with their inputs and two residual sums
    (9 widths) and the feed-forward layer before and after its activation (2 inner widths). Attention keeps
    no score matrix.
    """
    return int(backbone.config.num_hidden_layers * _per_layer(backbone))


def _per_layer(backbone: Any) -> int:  # noqa: ANN401
    config = backbone.config
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(9 * config.hidden_size + 2 * inner)


def _plan(
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
        per_token_checkpointed=layers * backbone.config.hidden_size + _per_layer(backbone),
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
