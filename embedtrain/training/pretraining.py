"""Pre-training: the step of a masked autoencoder, and its losses on held-out text."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from embedtrain.evaluation.measures.diagnostics import effective_rank, mean_norm
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoder
from embedtrain.objectives.pretrain import PretrainObjective
from embedtrain.objectives.pretrain.base import token_loss
from embedtrain.pretrain_types import MaskedBatch, PretrainOutputs
from embedtrain.training.callbacks import ends_step
from embedtrain.training.label_shares import weigh_by_labels
from embedtrain.training.settings import TrainerConfig
from embedtrain.training.trained_module import TrainedModule
from embedtrain.types import ObjectiveOutput


class PretrainModule(TrainedModule):
    """Trains a masked autoencoder.

    At logged steps the decoder runs once more, on the vectors of other texts:
    ``train/decoder_loss_shuffled`` beside ``train/decoder_loss`` says whether the vectors are used at all.

    Args:
        model: The autoencoder.
        objective: From outputs to a loss.
        config: Optimizer, schedule, chunk size.
        num_steps: Length of the schedule, in optimizer steps.
    """

    model: MaskedAutoencoder
    cure = "Lower trainer.learning_rate"

    def __init__(
        self,
        model: MaskedAutoencoder,
        objective: PretrainObjective,
        config: TrainerConfig,
        num_steps: int,
    ) -> None:
        super().__init__(model, config, num_steps)
        self.objective = objective

    def loss(self, batch: MaskedBatch) -> Tensor:
        """Return the loss of one batch."""

        def run() -> PretrainOutputs:
            with self.computing():
                outputs: PretrainOutputs = self.model(batch, self.execution, diagnose=self.logs_now)
            return outputs

        outputs = weigh_by_labels(self.within_memory(run))
        result = self.objective(outputs)
        if self.logs_now:
            figures = loss_figures(result, outputs)
            figures |= {name: value.item() for name, value in outputs.figures.items()}
            vectors = outputs.vectors.detach().float()
            figures["vector_norm"] = mean_norm(vectors).item()
            figures["effective_rank"] = effective_rank(vectors).item()
            self.log_figures(result.loss, figures)
        return result.loss

    @torch.no_grad()
    def held_out_figures(self, batches: Sequence[MaskedBatch]) -> dict[str, float]:
        """Return the mean losses of batches, without dropout and without touching the random state."""
        was_training = self.model.training
        self.model.eval()
        rows = []
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            for batch in batches:
                outputs = self.model(batch.to(self.device), self.execution, diagnose=True)
                result = self.objective(outputs)
                rows.append(loss_figures(result, outputs) | {"loss": result.loss.item()})
        self.model.train(was_training)
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


@torch.no_grad()
def loss_figures(result: ObjectiveOutput, outputs: PretrainOutputs) -> dict[str, float]:
    """Return an objective's figures, and the decoder's loss on the vectors of other texts."""
    figures = {name: value.item() for name, value in result.metrics.items()}
    if outputs.shuffled is not None:
        figures["decoder_loss_shuffled"] = token_loss(outputs, outputs.shuffled).item()
    return figures


class HeldOut(pl.Callback):  # type: ignore[misc]  # Lightning is not analysed
    """Logs the losses on held-out text every so many steps and at the end.

    Args:
        batches: Fixed texts with fixed masks.
        every_steps: Steps between two measurements.
    """

    def __init__(self, batches: Sequence[MaskedBatch], every_steps: int) -> None:
        self.batches = batches
        self.every_steps = every_steps

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: Any,  # noqa: ANN401 - a plain LightningModule to Lightning
        _: object,
        __: object,
        number: int,
    ) -> None:
        """Measure if it is time."""
        if not ends_step(trainer, number):
            return
        if trainer.global_step % self.every_steps and trainer.global_step != trainer.max_steps:
            return
        figures = module.held_out_figures(self.batches)
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"val/{name}": value for name, value in figures.items()}, trainer.global_step
            )
