"""The sections ``trainer:``, ``validation:`` and ``evaluation:`` of a recipe."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from embedtrain.precision import Precision
from embedtrain.section import Count, Section

AUTO = "auto"
"""What may stand in the place of the section ``trainer:``."""
Strategy = Literal["auto", "single", "ddp", "deepspeed_1", "deepspeed_2", "deepspeed_3", "fsdp"]


class TrainerConfig(Section):
    """How long, how fast and with what precision to train. Give ``steps`` or ``epochs``, or ``auto``."""

    auto: bool | Literal["synthetic"] = False
    """Choose learning rate, steps, batch, warm-up and patience by the number of queries and the model, and temperature,
    directions and ``validation.every_steps`` too; keys that are given stand. ``trainer: auto`` is the same as true;
    synthetic, for queries that a program wrote, takes fewer passes and a lower rate."""
    steps: Count | None = None
    """Optimizer steps."""
    epochs: PositiveFloat | None = None
    """Passes over all rows; turned into steps."""
    max_steps: Count | None = None
    """Of ``auto``: at most so many, where the data would take more."""
    max_seconds: PositiveFloat | None = None
    """Wall time of training and its validations, that before a stop included: the step in which it is over is the last
    one, measured and saved as such. The learning rate is then where ``steps`` had it, above 0."""
    batch_size: Count = Field(default=64, ge=2)
    """Queries per optimizer step, over all devices; each is a negative source for the others."""
    chunk_tokens: Count | Literal["auto"] = 16_384
    """Tokens encoded at once. Smaller needs less memory and changes no result; auto plans the most that fit.
    Where memory runs out all the same, the batch is done again with half as many."""
    rematerialize: bool | Annotated[float, Field(ge=0, le=1)] = False
    """Encode chunks again in the backward pass: memory of little more than one chunk, a quarter more time, same
    result. A number between 0 and 1 does so for that share of the chunks only."""
    learning_rate: PositiveFloat = 2.0e-5
    """Peak, after the warm-up."""
    weight_decay: NonNegativeFloat = 0.01
    """Not applied to norms, biases and a learnable temperature."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up; linear and cosine end at 0."""
    gradient_clip: NonNegativeFloat = 1.0
    """Largest global norm of the gradient; 0 is off."""
    accumulate: Count = 1
    """Micro-batches per optimizer step, one after another; each holds its share of ``batch_size`` and only its
    own negatives, and the gradient is the mean over them."""
    gradient_checkpointing: bool = False
    """Keep one activation per layer and compute the rest again in the backward pass, inside each chunk."""
    compile: bool = False
    """Compile each layer by torch.compile (single and ddp). Chunks are padded then, and the first
    steps take long."""
    activation_offload: bool = False
    """Keep activations in main memory between the forward and the backward pass; slow, for a GPU only."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 computes matrix products in bfloat16; weights, norms, scores and the loss stay float32, and on a GPU
    products of what stays float32 may be TF32. auto takes what is faster on the machine that begins the run (bf16
    on a GPU that has it, fp32 on a tie), and the run keeps it."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes beside each device that build batches ahead of the steps; none with ``refresh``. Null takes 2 on a
    GPU, and none on a CPU, where the step itself needs the cores. Batches are the same."""
    prefetch: Count = 4
    """Batches that each of them builds ahead."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What to compute on; auto takes a GPU where there is one."""
    strategy: Strategy = "auto"
    """How several devices share the work; auto is ddp, or single on one device. deepspeed_1 shards the state of
    the optimizer, deepspeed_2 also the gradients, deepspeed_3 and fsdp also the weights. Same result."""
    offload: bool = False
    """Keep the optimizer's state in main memory and step there (deepspeed_1, 2 and 3)."""
    devices: Count = 1
    """Processes on each machine, one per GPU; on CPU as many as are wanted."""
    nodes: Count = 1
    """Machines; for more than one, start the command with torchrun on each."""
    seed: int = Field(default=0, ge=0)
    """Of data order, dropout and new layers."""
    log_every: Count = 10
    """Steps between two lines of the log."""
    checkpoint_every: Count = 500
    """Steps between two checkpoints; the last two are kept."""
    patience: Count | None = None
    """Stop after so many validations without a better score, the start's among them; null trains all steps. The best is
    exported."""
    blend: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None = None
    """Export weights that are this far from the start, 0, to the trained ones, 1: less is forgotten. auto takes the
    best by validation; null exports the trained ones."""
    loggers: tuple[Literal["wandb", "tensorboard"], ...] = ()
    """Besides metrics.csv, which is always written. WANDB_MODE=offline needs no account."""

    @model_validator(mode="before")
    @classmethod
    def _auto_is_short(cls, content: Any) -> Any:  # noqa: ANN401 - whatever a recipe holds
        return {"auto": True} if content == AUTO else content

    @model_validator(mode="after")
    def _exactly_one_length(self) -> "TrainerConfig":
        both = self.steps is not None and self.epochs is not None
        if both or (self.steps is None and self.epochs is None and not self.auto):
            raise ValueError("give either steps or epochs")
        if self.max_steps is not None and not self.auto:
            raise ValueError("max_steps is for auto; give steps")
        return self

    @model_validator(mode="after")
    def _batch_can_be_cut(self) -> "TrainerConfig":
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}"
            )
        if self.micro_batch < self.num_ranks:
            raise ValueError(
                f"a micro-batch of {self.micro_batch} cannot be shared by {self.num_ranks} devices"
            )
        return self

    @model_validator(mode="after")
    def _strategy_can_do_it(self) -> "TrainerConfig":
        if self.strategy == "single" and self.num_ranks > 1:
            raise ValueError("strategy single has one device; give ddp, deepspeed_* or fsdp")
        if self.compile and (self.strategy == "fsdp" or self.strategy.startswith("deepspeed")):
            raise ValueError("compile needs strategy single or ddp")
        if self.compile and self.gradient_checkpointing:
            raise ValueError("compile goes with rematerialize, not with gradient_checkpointing")
        if self.offload and not self.strategy.startswith("deepspeed"):
            raise ValueError("offload needs strategy deepspeed_1, deepspeed_2 or deepspeed_3")
        return self

    @property
    def num_ranks(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes

    @property
    def micro_batch(self) -> int:
        """Queries whose documents are negatives of one another."""
        return self.batch_size // self.accumulate

    @property
    def shares_work(self) -> bool:
        """Whether processes are started that talk to each other, be it only one."""
        return self.num_ranks > 1 or self.strategy not in ("auto", "single")

    def num_steps(self, num_rows: int) -> int:
        """Return the number of optimizer steps for a data set of ``num_rows`` rows."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * num_rows / self.batch_size))


Others = Literal["random", "bm25"]


class TaskConfig(Section):
    """Queries, documents and judgments to measure on. Give ``path`` or ``fraction``."""

    path: str | None = None
    """A BEIR folder, or ``python_docs``."""
    split: str = "test"
    """Which judgments of ``path``: the name of a file in ``qrels/``."""
    fraction: float | None = Field(default=None, gt=0, le=0.5)
    """Share of the training queries that is kept out of training and measured on. Queries that share a
    positive document stay together, so that neither of them trains; which ones is decided by their texts,
    not by a seed."""
    num_queries: Count | None = None
    """Measure on so many of the queries only; null takes all."""
    num_documents: Count | None = None
    """Search among the documents of these queries and others up to this number; null takes all of ``path``,
    and 2,000 of ``data.sources``."""
    others: Others = "random"
    """Which other documents of ``path`` these are: any, or with ``bm25`` those that BM25 finds for the queries, among
    which scores are lower and differences nearer to those on all."""
    precision: Precision = "auto"
    """What texts are encoded in: fp32, bf16 or fp16; auto is bf16 on a GPU that has it, fp32 on a CPU."""

    @model_validator(mode="after")
    def _one_origin(self) -> "TaskConfig":
        if (self.path is None) == (self.fraction is None):
            raise ValueError("give either path or fraction")
        if self.others != "random" and self.path is None:
            raise ValueError(
                "others: bm25 chooses among the documents of path: a fraction has none"
            )
        return self

    @property
    def label(self) -> str:
        """What results call the judgments."""
        return "held-out" if self.path is None else self.split


class ValidationConfig(TaskConfig):
    """Measure the start and during training, and keep the best checkpoint. Never use the split you report."""

    split: str = "dev"
    every_steps: Count = 500
    """Steps between two measurements; the start is measured too, and exported where no step is better."""
    min_gain: NonNegativeFloat | Literal["auto"] | None = None
    """What ``trainer.patience`` calls better: so much more than the last score that was; auto is half the standard
    error of the difference, query by query; null takes any gain."""
    keep: int = Field(default=0, ge=0, le=100)
    """Keep the weights of so many of the last measurements, for `embedtrain select`."""
    first_stage: str | None = None
    """For a cross-encoder: what finds the documents that it puts in order. ``bm25``, a retriever's folder, or
    ``run:FILE`` in TREC's format; null is bm25."""
    top: Count = 100
    """For a cross-encoder: documents of each query that it puts in order; what was not found counts as missed."""
    instruction: str | None = None
    """For a cross-encoder: name in ``model.instructions`` that stands before the queries."""


def check_measuring(
    trainer: TrainerConfig, validation: ValidationConfig | None, evaluation: TaskConfig | None
) -> None:
    """Refuse patience with nothing to wait for, and to choose by what is reported.

    Raises:
        ValueError: Saying which.
    """
    waits = trainer.patience is not None
    if waits and validation is None:
        raise ValueError("trainer.patience waits for a better validation: add validation")
    if validation is not None and validation.min_gain is not None and not (waits or trainer.auto):
        raise ValueError("validation.min_gain is for trainer.patience: add patience")
    if trainer.blend == AUTO and validation is None:
        raise ValueError("trainer.blend: auto chooses by validation: add validation")
    named = [
        (task.path, task.split)
        for task in (validation, evaluation)
        if task is not None and task.path is not None  # two fractions are disjoint
    ]
    if len(set(named)) < len(named):
        raise ValueError(
            "validation and evaluation name the same split: the reported score would be chosen, "
            "not measured"
        )
