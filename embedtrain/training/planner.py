"""Plan the memory of a step before it runs, and choose how many tokens are encoded at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from embedtrain.errors import UserError
from embedtrain.memory import anonymous, is_out_of_memory, room
from embedtrain.models.backbone.fetching import first_line
from embedtrain.models.chunking import Execution
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoder
from embedtrain.models.recall import MOST_CHUNKS
from embedtrain.models.text_model import TextModel
from embedtrain.packed import Texts
from embedtrain.pretrain_types import MaskedBatch
from embedtrain.progress import console
from embedtrain.training.activations import Kept, measure_kept
from embedtrain.training.devices import Device
from embedtrain.training.settings import TrainerConfig
from embedtrain.types import RetrievalBatch
from embedtrain.units import show_bytes

FEWEST_TOKENS = 256
PROBE_TOKENS = (256, 768)
"""Of the two small passes whose memory is counted."""
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
        per_token: Bytes that one token keeps for the backward pass.
        per_token_checkpointed: The same where only each layer's input is kept.
        per_token_again: Bytes that one token keeps where its chunk is encoded again and recalls what it can.
        per_token_now: Bytes that one token of a chunk takes while a layer computes.
        tokens: Tokens of this rank's part of a micro-batch.
        vectors: Numbers of all ranks' document vectors, and this rank's query vectors.
        fixed: Bytes of a pass whatever its tokens: weights rounded to bf16.
        process: Bytes that the process holds besides, on a CPU: libraries, data.
        checkpoint: Bytes of a checkpoint, on a CPU, which is put together in memory before it is written.
    """

    parameters: int
    trained: int
    per_token: int
    per_token_checkpointed: int
    per_token_again: int
    per_token_now: int
    tokens: int
    vectors: int
    fixed: int = 0
    process: int = 0
    checkpoint: int = 0


TOO_LARGE = (
    "\nThis may not fit. Set trainer.rematerialize=true, lower trainer.chunk_tokens, use more "
    "trainer.devices or a strategy that shards more"
)


@dataclass(frozen=True)
class Plan:
    """Bytes of one rank at the peak of a step: arithmetic on what small forward passes keep."""

    chunk_tokens: int
    parts: Mapping[str, int]
    """Of the process, weights, gradients, optimizer, activations, vectors and a checkpoint."""
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
    again = float(config.rematerialize)
    at_once = min(shape.tokens, chunk)
    kept = max(at_once, round((1 - again) * shape.tokens))
    per_token = shape.per_token_checkpointed if config.gradient_checkpointing else shape.per_token
    recalled = 0 if config.compile else min(shape.tokens - kept, MOST_CHUNKS * chunk)
    activations = kept * per_token + recalled * shape.per_token_again + shape.fixed
    moments = 8 * shape.trained // (ranks if stage else 1)
    master = 4 * shape.trained // ranks if name.startswith("deepspeed") else 0
    parts = {
        "process": shape.process,
        "weights": 4 * shape.parameters // (ranks if stage == 3 else 1),
        "gradients": 4 * shape.trained // (ranks if stage >= 2 else 1),
        "optimizer": 0 if config.offload else moments + master,
        "activations": (0 if config.activation_offload else activations)
        + at_once * shape.per_token_now,
        "vectors": 2 * 4 * shape.vectors,
        "checkpoint": shape.checkpoint,
    }
    return Plan(chunk, parts, available)


def plan_retrieval(
    config: TrainerConfig, model: TextModel, batch: RetrievalBatch, on: Device | None = None
) -> Plan:
    """Plan a step on batches like this part of a micro-batch, one rank's; here, or ``on`` another device."""
    texts = model.texts_of(batch.on_host)
    lengths = texts.sizes
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    probes = []
    for wanted in PROBE_TOKENS:
        within = int((lengths[order].cumsum(0) <= wanted).sum())
        probes.append(texts.select(order[: max(1, within)]))
    whole = Execution(int(lengths.sum()))

    def run(probe: Texts) -> object:
        return model.values(probe.to(model.device), whole)

    sizes = [int(probe.lengths.sum()) for probe in probes]
    runs = [partial(run, probe) for probe in probes]
    kept = measure_kept(model, runs, sizes, bf16=config.precision == "bf16")
    vectors = _num_vectors(config, model, batch)
    return _plan_model(config, model, model.backbone, kept, int(lengths.sum()), vectors, on)


def _num_vectors(config: TrainerConfig, model: TextModel, batch: RetrievalBatch) -> int:
    """Return the numbers of a batch's vectors, of own queries and of all ranks' documents."""
    if not isinstance(model, TextEncoder):
        return 0
    several = not hasattr(model.contract, "pooling")  # one vector per token
    queries = int(batch.queries.lengths.sum()) if several else len(batch.query_rows)
    documents = int(batch.documents.lengths.sum()) if several else len(batch.document_rows)
    return (queries + config.num_ranks * documents) * model.dim


def plan_pretraining(
    config: TrainerConfig,
    model: MaskedAutoencoder,
    loss: Callable[[Any], object],
    probes: Sequence[MaskedBatch],
    tokens: int,
    on: Device | None = None,
) -> Plan:
    """Plan a step of pre-training on so many tokens of one rank; ``probes`` are two small batches."""
    whole = Execution(max(FEWEST_TOKENS, tokens))

    def run(probe: MaskedBatch) -> object:
        return loss(model(probe.to(model.encoder.device), whole))

    sizes = [int(probe.texts.lengths.sum()) for probe in probes]
    runs = [partial(run, probe) for probe in probes]
    kept = measure_kept(model, runs, sizes, bf16=config.precision == "bf16")
    return _plan_model(config, model, model.encoder.backbone, kept, tokens, 0, on)


def announce(config: TrainerConfig, plan: Plan) -> TrainerConfig:
    """Print a plan and return the settings with its chunks."""
    console.print(describe(plan))
    return config.model_copy(update={"chunk_tokens": plan.chunk_tokens})


@contextmanager
def within(plan: Plan) -> Iterator[None]:
    """Say what was planned where memory runs out beyond the parts of a step that are done again.

    Raises:
        UserError: In place of what the libraries raise.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            "training",
            f"ran out of memory; planned were {show_bytes(plan.total)} of {show_bytes(plan.available)}",
            got=first_line(error),
            cure="Set trainer.rematerialize=true and a smaller trainer.chunk_tokens (embedtrain check says "
            "what they need), or free some memory",
        ) from error


def describe(plan: Plan) -> str:
    """Return a plan in a line, and what to do in another where it may not fit."""
    parts = ", ".join(f"{name} {show_bytes(size)}" for name, size in plan.parts.items())
    return (
        f"Memory of each device: about {show_bytes(plan.total)} of {show_bytes(plan.available)} "
        f"free ({parts}); {plan.chunk_tokens:,} tokens at once"
    ) + ("" if plan.fits else TOO_LARGE)


def _plan_model(
    config: TrainerConfig,
    model: nn.Module,
    backbone: Any,  # noqa: ANN401 - transformers is untyped
    kept: Kept,
    tokens: int,
    vectors: int,
    on: Device | None,
) -> Plan:
    parameters = list(model.parameters())
    layers = max(1, backbone.config.num_hidden_layers)
    width = int(backbone.config.hidden_size)
    inner = getattr(backbone.config, "intermediate_size", None) or 4 * width
    number = 2 if config.precision == "bf16" else 4
    weights = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    device = parameters[0].device.type if on is None else "cuda"
    process = 0 if device == "cuda" else max(0, anonymous() - 4 * weights)
    shape = Shape(
        parameters=weights,
        trained=trained,
        per_token=kept.per_token,
        per_token_checkpointed=layers * width * number + kept.per_token // layers,
        per_token_again=layers * width * number,
        per_token_now=4 * (2 * inner + 4 * width),
        tokens=tokens,
        vectors=vectors,
        fixed=kept.fixed,
        process=process,
        checkpoint=0 if device == "cuda" else 4 * weights + 8 * trained,
    )
    available = free_bytes(device, config.devices) if on is None else on.memory * 10**9
    if device != "cuda":  # what the plan counts and the process has already
        available += process + 4 * weights
    return plan_memory(config, shape, available, device)


def free_bytes(device: str, processes: int) -> int:
    """Return the free memory of a device; what this machine, or a limit, leaves is shared by the processes."""
    if device == "cuda":
        # What torch holds and nobody uses is free as well: a measurement before training leaves much of it.
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0]) + unused
    return room() // processes
