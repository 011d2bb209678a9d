"""What every kind of training shares: the step's random state, precision, optimizer, clipping and log."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.memory import Heap, is_out_of_memory
from embedtrain.models.backbone.fetching import first_line
from embedtrain.models.backbone.frozen import refuse_other_weights, without_frozen
from embedtrain.models.chunking import Execution
from embedtrain.models.compiling import compile_layers
from embedtrain.models.text_model import TextModel
from embedtrain.packed import Texts
from embedtrain.progress import console
from embedtrain.training.activations import keep_one_activation_per_layer
from embedtrain.training.bad_batch import LossWatch, save_batch
from embedtrain.training.optimizer import build_optimizer, build_schedule
from embedtrain.training.ranks.processes import any_rank, average, largest, own_shard
from embedtrain.training.ranks.strategies import needs_equal_chunks, shard_model
from embedtrain.training.settings import TrainerConfig

SAVED_ELSEWHERE = "the ranks that saw it have saved the batch"
FEWEST_TOKENS = 16
"""Chunks are not halved below this."""
T = TypeVar("T")


class TrainedModule(pl.LightningModule, ABC):
    """What every kind of training shares; a subclass gives the loss of a batch."""

    cure: str
    """What to do about a loss that is not finite."""

    def __init__(self, model: nn.Module, config: TrainerConfig, num_steps: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.num_steps = num_steps
        assert config.chunk_tokens != "auto", "planned before"
        assert config.precision != "auto", "chosen before"
        agree = largest if needs_equal_chunks(config) and config.num_ranks > 1 else None
        self.execution = Execution(
            config.chunk_tokens, config.rematerialize, agree, recall=not config.compile
        )
        self.logged: Mapping[str, float] = {}
        """The last line of the log."""
        self.readings: Callable[[], Mapping[str, float]] = dict
        """What else is logged with a line, asked for when the device has been waited for."""
        self._watch = LossWatch()
        self._micro_batch = 0
        self._heap = Heap()
        self._batch: Any = None
        self._sharded = False
        if needs_equal_chunks(config):
            decide_packing(model, bf16=config.precision == "bf16")
        if config.gradient_checkpointing:
            keep_one_activation_per_layer(model)
        if config.compile:
            compile_layers(model)

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:  # noqa: ANN401 - of its own kind
        """Return the loss of one batch, weighted so that the mean over ranks is that of all their rows."""

    def training_step(self, batch: Any, index: int) -> Tensor:  # noqa: ANN401 - of its own kind
        """Return the loss of a micro-batch.

        Dropout depends on seed, step, micro-batch and rank alone, so a resumed run draws the same.
        """
        self._micro_batch = index % self.config.accumulate
        self._batch = batch
        if own_shard().ranks > 1:
            loss = self.loss(batch)
        else:
            loss = self.within_memory(lambda: self.loss(batch))
        step, folder = self.trainer.global_step, Path(self.trainer.default_root_dir)
        rank = own_shard().rank
        self._watch.note(loss.detach(), step, lambda: save_batch(batch.on_host, folder, step, rank))
        if own_shard().ranks == 1:
            self.refuse_bad_loss()
        return loss

    def on_train_start(self) -> None:
        """Let steps on a CPU use the memory of the steps before."""
        if self.device.type == "cpu":
            self._heap.begin()

    def on_train_batch_end(self, *_: object) -> None:
        """Keep the heap of a CPU from growing: packed batches never have the same shape twice.

        Lightning frees gradients after the next forward pass only: till then they would lie scattered among its blocks.
        """
        if self.device.type != "cpu":
            return
        if self._micro_batch == self.config.accumulate - 1:
            self.zero_grad()
        self._heap.step_done()

    def on_train_end(self) -> None:
        """Give the memory back."""
        self._heap.end()

    def within_memory(self, work: Callable[[], T]) -> T:
        """Do a part of the step; where memory runs out on any rank, all do it again with half the chunk."""
        while True:
            torch.manual_seed(
                step_seed(self.config.seed, self.trainer.global_step, self._micro_batch)
            )
            problem, results = "", []
            try:
                results.append(work())
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.execution.agree is not None:  # the others wait for this rank's chunks
                    raise self._out_of_memory(error) from error
                problem = first_line(error)
            if not any_rank([bool(problem)])[0]:
                return results[0]
            results.clear()
            self._halve_chunks(problem)

    def backward(self, loss: Tensor, *arguments: object, **settings: object) -> None:
        """Run the backward pass; on one device a batch that runs out of memory here is done again as well."""
        while True:
            try:
                super().backward(loss, *arguments, **settings)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if own_shard().ranks > 1 or self._micro_batch:  # gradients of others are in already
                    raise self._out_of_memory(error) from error
                problem = first_line(error)
            else:
                return
            loss.detach_()  # lets go of what is left of the graph
            self.zero_grad()
            self._halve_chunks(problem)
            again = self.within_memory(lambda: self.loss(self._batch))
            loss = again / self.config.accumulate

    def _halve_chunks(self, problem: str) -> None:
        texts = [part for part in vars(self._batch).values() if isinstance(part, Texts)]
        tokens = max(int(part.sizes.sum()) for part in texts)
        chunk = largest(min(self.execution.chunk_tokens, tokens)) // 2
        if chunk < FEWEST_TOKENS:
            raise UserError(
                f"step {self.trainer.global_step}",
                f"runs out of memory even with {2 * chunk} tokens at once",
                got=problem,
                cure="Lower trainer.batch_size, use more devices or a strategy that shards more",
            )
        self.execution = replace(self.execution, chunk_tokens=chunk, rematerialize=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        else:
            self._heap.end()  # what little there is, all must be able to use
        console.print(
            f"Step {self.trainer.global_step} ran out of memory; it is done again, and training goes on, "
            f"with {chunk:,} tokens at once, each chunk encoded again in the backward pass"
        )

    def _out_of_memory(self, error: Exception) -> UserError:
        return UserError(
            f"step {self.trainer.global_step}",
            f"runs out of memory on rank {own_shard().rank} where it cannot be done again",
            got=first_line(error),
            cure=f"Continue with embedtrain train --resume {self.trainer.default_root_dir} "
            f"trainer.rematerialize=true trainer.chunk_tokens={self.execution.chunk_tokens // 2}",
        )

    def refuse_bad_loss(self, *, seen_now: bool = False) -> None:
        """Stop, all ranks together, at a loss that is not finite: whatever it would train is lost already.

        On a GPU the last loss is looked at when the next one is there, or if it must be ``seen_now``: before anything
        is made of the weights.
        """
        if seen_now:
            self._watch.look()
        bad = self._watch.bad
        step = largest(-1 if bad is None else bad.step)  # on a GPU not the step that runs
        if step < 0:
            return
        value, path, late = None, SAVED_ELSEWHERE, ""
        if bad is not None:
            late = ", which was seen a batch later" if bad.is_late else ""
            value, path = bad.value, str(bad.path)
        raise UserError(
            f"step {step}",
            f"has a loss that is not finite{late} (batch: {path})",
            got=value,
            cure=self.cure,
        )

    @property
    def logs_now(self) -> bool:
        """Whether this step writes a line of the log."""
        due = self.trainer.global_step % self.config.log_every == 0
        return bool(due and self._micro_batch == 0)

    def log_figures(self, loss: Tensor, figures: Mapping[str, Tensor]) -> None:
        """Write a line of the log, with the means over ranks; figures are read from the device together."""
        found = read_figures({"loss": loss} | dict(figures))
        line = average({f"train/{name}": found[name] for name in found} | dict(self.readings()))
        line["train/learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        for logger in self.loggers:
            logger.log_metrics(line, self.trainer.global_step)
        self.logged = line

    def configure_model(self) -> None:
        """Shard the model where the strategy leaves that to us; Lightning may call this twice."""
        if not self._sharded:
            shard_model(self.model, self.trainer.strategy)
            self._sharded = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the weights of a frozen backbone out: they are read from where they came from.

        Raises:
            UserError: If the last loss was not finite.
        """
        self.refuse_bad_loss(seen_now=True)
        checkpoint["state_dict"] = without_frozen(self, checkpoint["state_dict"])

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:  # noqa: ANN401 - torch's named tuple
        """Load weights; those of a frozen backbone may be missing, whatever ``strict`` says of others."""
        if strict:
            refuse_other_weights("the checkpoint", self, state_dict)
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def computing(self) -> ExitStack:
        """Return the context in which the model runs: precision, and where activations wait."""
        stack = ExitStack()
        bf16 = self.config.precision == "bf16"
        stack.enter_context(torch.autocast(self.device.type, torch.bfloat16, enabled=bf16))
        if self.config.activation_offload:
            stack.enter_context(
                torch.autograd.graph.save_on_cpu(pin_memory=self.device.type == "cuda")
            )
        return stack

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union of forms
        """Return AdamW and a schedule that advances every step."""
        optimizer = build_optimizer(self.model, self.config)
        schedule = build_schedule(optimizer, self.config, self.num_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: object,  # noqa: ARG002
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clip the global norm ourselves; DeepSpeed, which holds the gradients, does so itself.

        Lightning 2.6 refuses to with a fused optimizer under mixed precision, because of float16's loss
        scaling, which bf16 does not have.
        """
        if gradient_clip_val and not self.config.strategy.startswith("deepspeed"):
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)


def read_figures(figures: Mapping[str, Tensor]) -> dict[str, float]:
    """Return scalars as numbers; the device is asked once for all of them."""
    together = torch.stack([value.detach().double() for value in figures.values()])
    return dict(zip(figures, together.tolist(), strict=True))


def step_seed(seed: int, step: int, micro_batch: int) -> int:
    """Mix the numbers that dropout depends on, and this rank's, into one."""
    entropy = [seed, 4, step, micro_batch, own_shard().rank]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def decide_packing(model: nn.Module, *, bf16: bool) -> None:
    """Let every encoder find out now whether packing is exact as it will train: the check runs the backbone.

    Later, where weights are sharded, a rank that has encoded before would leave the others alone with it.
    """
    for part in model.modules():
        if isinstance(part, TextModel):
            one, training = torch.ones(1, dtype=torch.int64), part.training
            part.train()
            with torch.autocast(part.device.type, torch.bfloat16, enabled=bf16):
                part.packs(Texts(one, one).to(part.device))
            part.train(training)
