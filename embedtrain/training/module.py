"""The step of retrieval: model, gather, objective, log. Nothing else happens in it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from embedtrain.evaluation.measures.diagnostics import effective_rank, mean_norm
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.objectives.base import Objective
from embedtrain.objectives.own import check_output
from embedtrain.ops.row_blocks import candidate_masks
from embedtrain.ops.scorers import Scorer
from embedtrain.ops.similarity import take, widen
from embedtrain.progress import console
from embedtrain.training.acting_adapters import ActingAdapters
from embedtrain.training.idle_entries import IdleEntries
from embedtrain.training.memory_bank import ContextContrast
from embedtrain.training.one_side import without_unread
from embedtrain.training.pair_figures import LONG, SameScores, pair_figures
from embedtrain.training.prices import Prices
from embedtrain.training.ranks.gather import gather_code, gather_outputs
from embedtrain.training.ranks.means import mean_columns
from embedtrain.training.ranks.processes import own_shard
from embedtrain.training.settings import TrainerConfig
from embedtrain.training.sparse_figures import sparse_figures
from embedtrain.training.trained_module import TrainedModule
from embedtrain.types import (
    GuideEmbeddings,
    RetrievalBatch,
    RetrievalOutputs,
    Side,
    TokenEmbeddings,
)

PRICES, BANK = "prices", "bank"
"""Where a checkpoint keeps them."""
Guide = Callable[[RetrievalOutputs, Sequence[Side]], GuideEmbeddings]
"""What another model makes of the sides of a batch; :mod:`embedtrain.training.guide`."""
Frozen = Callable[[DenseEncoder, RetrievalBatch, Execution], RetrievalOutputs]
"""Encodes queries alone; :mod:`embedtrain.training.frozen_documents`. A step needs no more of either."""


class RetrievalModule(TrainedModule):
    """Trains an encoder, or a cross-encoder, on an objective.

    There is one objective for each source of batches, or one for all; so with ``batch_sizes``, over all
    devices. ``tasks`` name the adapters of each source, where the model has several.
    """

    cure = "Lower trainer.learning_rate or raise the temperature"

    def __init__(
        self,
        model: TextModel,
        objectives: Sequence[Objective],
        config: TrainerConfig,
        num_steps: int,
        guide: Guide | None = None,
        frozen: Frozen | None = None,
        batch_sizes: Sequence[int] = (),
        tasks: Sequence[str | None] = (),
    ) -> None:
        super().__init__(model, config, num_steps)
        self.objectives = objectives
        self.prices = Prices(objectives)
        self.idle = IdleEntries(model)
        banks = [objective.wanted_bank for objective in objectives]
        self.context = ContextContrast(model, banks, max(1, len(batch_sizes)))
        self.acting = ActingAdapters(model, tasks)
        self.batch_sizes = batch_sizes
        self._same = SameScores()
        self.guide = guide
        self.frozen = frozen

    def loss(self, batch: RetrievalBatch) -> Tensor:
        """Return the loss of one batch."""
        objective = self.objective_of(batch)
        read = without_unread(batch, objective.read_sides)
        outputs = self.within_memory(lambda: self._encode(read))
        outputs = replace(outputs, progress=(self.trainer.global_step + 1) / self.num_steps)
        outputs = gather_outputs(outputs, with_queries=objective.needs_all_queries)
        if not objective.takes_half:
            outputs = outputs.changed(widen, widen)
        if objective.counts_query_words is not None:  # documents of all ranks are here already
            assert isinstance(outputs.query, Tensor)
            words = mean_columns(outputs.query, objective.counts_query_words)
            outputs = replace(outputs, query_words=words)
        outputs = self.prices.priced(outputs, self._place(batch))
        self.idle.look(outputs)
        step = self.trainer.global_step
        outputs = self.context.compared(
            outputs, source=batch.source, step=step, micro_batch=self._micro_batch
        )
        if outputs.code is not None and objective.needs_code:
            outputs = replace(outputs, code=gather_code(outputs.code))
        if self.guide is not None:
            outputs = replace(outputs, guide=self.guide(outputs, objective.read_sides))
        # Outside of autocast: scores at a low temperature need float32, bf16 logits give gradients far off.
        result = check_output(objective, objective(outputs))
        whole = self.config.micro_batch
        if self.batch_sizes:
            whole = self.batch_sizes[batch.source] // self.config.accumulate
        share = len(outputs.query) * own_shard().ranks / whole
        loss = result.loss * share  # the ranks' mean is then that over all queries
        if outputs.temperature is not None:
            # An objective without a temperature still gives it a gradient, for which DDP waits.
            loss = loss + 0 * outputs.temperature
        if outputs.interaction is not None:  # nor does a step train both of its branches
            loss = loss + 0 * outputs.interaction.total()
        loss = self.acting.reach_all(loss)
        if self.logs_now:
            self._log_step(loss, result.metrics, outputs, objective.read_sides)
        return loss

    def objective_of(self, batch: RetrievalBatch) -> Objective:
        """Return what a batch is trained on."""
        return self.objectives[self._place(batch)]

    def _place(self, batch: RetrievalBatch) -> int:
        return batch.source if len(self.objectives) > 1 else 0

    def on_before_optimizer_step(self, *_: object) -> None:
        """Leave adapters alone that had no part in the step."""
        self.acting.forget_idle()

    def optimizer_step(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 - Lightning's own
        """Count the step where it is done, before anything saves a checkpoint of it."""
        super().optimizer_step(*arguments, **settings)
        if self._micro_batch == self.config.accumulate - 1:
            self.prices.step_done()
            self.idle.step_done()
            self.context.step_done()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the prices, and the bank."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[PRICES] = self.prices.state()
        if self.context.head is not None:
            checkpoint[BANK] = self.context.bank.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the prices, and the bank."""
        if BANK in checkpoint:
            self.context.bank.load(checkpoint[BANK], self.device)
        if PRICES in checkpoint:  # older ones have none
            self.prices.load(checkpoint[PRICES])

    def _encode(self, batch: RetrievalBatch) -> RetrievalOutputs:
        with self.computing(), self.acting.of_source(batch.source):
            if self.frozen is not None:
                assert isinstance(self.model, DenseEncoder)
                return self.frozen(self.model, batch, self.execution)
            outputs: RetrievalOutputs = self.model(batch, self.execution)
            return outputs

    def _log_step(
        self,
        loss: Tensor,
        metrics: dict[str, Tensor],
        outputs: RetrievalOutputs,
        sides: tuple[Side, ...],
    ) -> None:
        if outputs.reads_pairs:
            figures = {} if outputs.pair_scores is None else pair_figures(outputs)
            self.log_figures(loss, metrics | figures)
            if figures:
                self._tell_same_scores(self.logged["train/score_std"])
            return
        outputs = outputs.at_exit(-1).changed(widen, widen)
        # Numbers of queries that pairs are scored by may be no vectors.
        reads_queries = "query" in sides and outputs.interaction is None
        shown = outputs.query if reads_queries else outputs.document
        embeddings = (shown if isinstance(shown, Tensor) else shown.tokens).detach()
        further = {
            "embedding_norm": mean_norm(embeddings),
            "effective_rank": effective_rank(embeddings),
        }
        if len(set(sides)) > 1:
            further["suspected_false_negatives"] = suspected_false_negatives(outputs)
        if isinstance(self.model, SparseEncoder):
            further |= sparse_figures(outputs)
        self.log_figures(loss, metrics | further)

    def _tell_same_scores(self, spread: float) -> None:
        if self._same.seen(spread, self.trainer.global_step) and own_shard().is_first:
            console.print(
                f"The model has scored all documents of a query alike for {LONG} steps (they spread by {spread:.2g}), "
                "so a softmax costs the logarithm of their number: lower trainer.learning_rate or raise trainer.warmup_ratio"
            )


@torch.no_grad()
def suspected_false_negatives(
    outputs: RetrievalOutputs,
) -> Tensor:
    """Return the share of negatives that score above 0.95 times the positive's score.

    Documents so close to the positive often answer the query as well. Known positives do not count. Only the
    first queries of the batch are looked at, so that no B x B matrix is stored.

    Source: the threshold is NV-Retriever's, Moreira et al. (2024), https://arxiv.org/abs/2407.15831.
    """
    relevance = outputs.relevance
    # Each score of token vectors costs as much as dozens of dense ones.
    dear = isinstance(outputs.query, TokenEmbeddings) or outputs.interaction is not None
    most = 16 if dear else 256
    num_queries = min(most, len(outputs.query))
    rows = torch.arange(num_queries, device=relevance.owners.device)
    scores = Scorer(outputs.interaction).all(take(outputs.query, rows), outputs.document)
    positive = scores.gather(1, relevance.positives[:num_queries, :1])
    _, negative = candidate_masks(outputs, rows)
    threshold = positive - 0.05 * positive.abs()
    return ((scores > threshold) & negative).sum() / negative.sum().clamp_min(1)
