"""Plan the memory of a step before it runs, and choose how many tokens are encoded at once."""

from collections.abc import Mapping
from dataclasses import dataclass

from embedtrain.training.settings import TrainerConfig

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


@dataclass(frozen=True)
class Plan:
    """Bytes of one rank at the peak of a step; arithmetic, not measured."""

    chunk_tokens: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    vectors: int
    available: int

    @property
    def total(self) -> int:
        """The peak."""
        parts = (self.weights, self.gradients, self.optimizer, self.activations, self.vectors)
        return sum(parts)

    @property
    def fits(self) -> bool:
        """Whether the peak stays below the usable part of the free memory."""
        return self.total <= USABLE * self.available

    @property
    def parts(self) -> Mapping[str, int]:
        """The parts by name."""
        names = ("weights", "gradients", "optimizer", "activations", "vectors")
        return {name: getattr(self, name) for name in names}


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
    per_token = shape.per_token
    if config.gradient_checkpointing:
        per_token = shape.per_token_checkpointed
    moments = 8 * shape.trained // (ranks if stage else 1)
    master = 4 * shape.trained // ranks if name.startswith("deepspeed") else 0
    return Plan(
        chunk_tokens=chunk,
        weights=4 * shape.parameters // (ranks if stage == 3 else 1),
        gradients=4 * shape.trained // (ranks if stage >= 2 else 1),
        optimizer=0 if config.offload else moments + master,
        activations=0 if config.activation_offload else kept * per_token * width,
        vectors=2 * 4 * shape.vectors,
        available=available,
    )
