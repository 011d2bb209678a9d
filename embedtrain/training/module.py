"""The LightningModules: model, gather, objective, log. Nothing else happens in a step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.evaluation.diagnostics import effective_rank, mean_norm
from embedtrain.models.chunking import Execution
from embedtrain.models.dense import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.objectives.base import Objective
from embedtrain.ops.similarity import all_scores, take
from embedtrain.training.distributed import gather_outputs
from embedtrain.training.frozen_documents import FrozenDocuments
from embedtrain.training.guide import Guide
from embedtrain.training.optimizer import build_optimizer, build_schedule
from embedtrain.training.settings import TrainerConfig
from embedtrain.types import RetrievalBatch, RetrievalOutputs, TokenEmbeddings


class TrainedModule(pl.LightningModule, ABC):
    """What every kind of training shares: optimizer, clipping, random state, log. A subclass gives the step.

    Args:
        model: What is trained.
        config: Optimizer, schedule, chunk size.
        num_steps: Length of the schedule, in optimizer steps.
    """

    def __init__(self, model: nn.Module, config: TrainerConfig, num_steps: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.num_steps = num_steps
        self.execution = Execution(config.chunk_tokens, config.rematerialize)

    @abstractmethod
    def training_step(self, batch: Any, index: int) -> Tensor:  # noqa: ANN401 - of its own kind
        """Return the loss of one batch."""

    @property
    def logs_now(self) -> bool:
        """Whether this step writes a line of the log."""
        return bool(self.trainer.global_step % self.config.log_every == 0)

    def log_figures(self, loss: Tensor, figures: Mapping[str, float]) -> None:
        """Write a line of the log."""
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        line = {"loss": loss.item()} | dict(figures) | {"learning_rate": rate}
        for logger in self.loggers:
            logger.log_metrics(
                {f"train/{name}": value for name, value in line.items()}, self.trainer.global_step
            )
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=1)

    def refuse_bad_loss(self, loss: Tensor, cure: str) -> None:
        """Stop at a loss that is not finite: whatever it would train is lost already."""
        if not torch.isfinite(loss):
            raise UserError(
                f"step {self.trainer.global_step}",
                "has a loss that is not finite",
                got=loss.item(),
                cure=cure,
            )

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
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clip the global norm ourselves.

        Lightning 2.6 refuses to with a fused optimizer under mixed precision, because of float16's loss
        scaling, which bf16 does not have.
        """
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random state, so that a resumed run draws the same dropout masks."""
        checkpoint["random_state"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            checkpoint["random_state"]["cuda"] = torch.cuda.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Hold the random state until the first step: set-up in between draws numbers too."""
        self._random_state = checkpoint["random_state"]

    def on_train_start(self) -> None:
        """Put the random state back."""
        state = getattr(self, "_random_state", None)
        if state is not None:
            torch.set_rng_state(state["cpu"])
            if "cuda" in state and torch.cuda.is_available():
                torch.cuda.set_rng_state(state["cuda"])


class RetrievalModule(TrainedModule):
    """Trains an encoder on an objective.

    Args:
        model: The encoder.
        objective: From outputs to a loss.
        config: Optimizer, schedule, chunk size.
        num_steps: Length of the schedule, in optimizer steps.
        guide: A second model's view of a batch, or None.
        frozen: Documents that were encoded before training, or None to train both sides.
    """

    def __init__(
        self,
        model: TextEncoder,
        objective: Objective,
        config: TrainerConfig,
        num_steps: int,
        guide: Guide | None = None,
        frozen: FrozenDocuments | None = None,
    ) -> None:
        super().__init__(model, config, num_steps)
        self.objective = objective
        self.guide = guide
        self.frozen = frozen

    def training_step(self, batch: RetrievalBatch, _: int) -> Tensor:
        """Return the loss of one batch."""
        if self.frozen is None:
            outputs = self.model(batch, self.execution)
        else:
            assert isinstance(self.model, DenseEncoder)
            outputs = self.frozen(self.model, batch, self.execution)
        outputs = gather_outputs(outputs, with_queries=self.objective.needs_all_queries)
        if self.guide is not None:
            outputs = replace(outputs, guide=self.guide(outputs))
        # Scores at a low temperature need float32: bf16 logits give gradients that are far off.
        with torch.autocast(self.device.type, enabled=False):
            result = self.objective(outputs)
            if self.logs_now:
                self._log_step(result.loss, result.metrics, outputs)
        self.refuse_bad_loss(result.loss, "Lower trainer.learning_rate or raise the temperature")
        return result.loss

    def _log_step(
        self, loss: Tensor, metrics: dict[str, Tensor], outputs: RetrievalOutputs
    ) -> None:
        outputs = outputs.at_exit(-1)
        query = outputs.query
        embeddings = (query if isinstance(query, Tensor) else query.tokens).detach()
        figures = {name: value.item() for name, value in metrics.items()}
        figures["embedding_norm"] = mean_norm(embeddings).item()
        figures["effective_rank"] = effective_rank(embeddings).item()
        figures["suspected_false_negatives"] = suspected_false_negatives(outputs).item()
        self.log_figures(loss, figures)


@torch.no_grad()
def suspected_false_negatives(
    outputs: RetrievalOutputs, ratio: float = 0.95, num_queries: int = 256
) -> Tensor:
    """Return the share of negatives that score above ``ratio`` times the positive's score.

    Documents so close to the positive often answer the query as well. Known positives do not count. Only the
    first queries of the batch are looked at, so that no B x B matrix is stored.

    Source: the threshold is NV-Retriever's, Moreira et al. (2024), https://arxiv.org/abs/2407.15831.
    """
    relevance = outputs.relevance
    if isinstance(outputs.query, TokenEmbeddings):
        num_queries = min(num_queries, 16)  # each score costs as much as dozens of dense ones
    num_queries = min(num_queries, len(outputs.query))
    rows = torch.arange(num_queries, device=relevance.owners.device)
    scores = all_scores(take(outputs.query, rows), outputs.document)
    ids, columns = relevance.document_ids, relevance.positives[:num_queries]
    positive = scores.gather(1, columns[:, :1])
    own = ids[columns.clamp_min(0)].masked_fill(columns < 0, -1)
    known = torch.cat([own, relevance.known_positives[:num_queries]], dim=1)
    negative = torch.ones_like(scores, dtype=torch.bool)
    for column in known.unbind(1):
        negative &= ids != column[:, None]
    threshold = positive - (1 - ratio) * positive.abs()
    return ((scores > threshold) & negative).sum() / negative.sum().clamp_min(1)
