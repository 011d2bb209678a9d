"""Pre-training: the step of a masked autoencoder, and its losses on held-out text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from embedtrain.evaluation.measures.diagnostics import effective_rank, mean_norm
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoder
from embedtrain.objectives.own import check_output
from embedtrain.objectives.pretrain import PretrainObjective
from embedtrain.objectives.pretrain.base import token_loss
from embedtrain.pretrain_types import MaskedBatch, PretrainOutputs
from embedtrain.training.measuring import Measurement
from embedtrain.training.ranks.gather import gather_numbers, gather_vectors, is_distributed
from embedtrain.training.settings import TrainerConfig
from embedtrain.training.trained_module import TrainedModule, read_figures
from embedtrain.types import ObjectiveOutput


class PretrainModule(TrainedModule):
    """Trains a masked autoencoder.

    At logged steps the decoder runs once more, on the vectors of other texts:
    ``train/decoder_loss_shuffled`` beside ``train/decoder_loss`` says whether the vectors are used at all.
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
        if self.objective.needs_all_vectors:
            outputs = replace(outputs, all_vectors=gather_vectors(outputs.vectors))
        result = check_output(self.objective, self.objective(outputs))
        if self.logs_now:
            figures = loss_figures(result, outputs) | outputs.figures
            vectors = outputs.vectors.detach().float()
            figures["vector_norm"] = mean_norm(vectors)
            figures["effective_rank"] = effective_rank(vectors)
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
                rows.append(read_figures(loss_figures(result, outputs) | {"loss": result.loss}))
        self.model.train(was_training)
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def weigh_by_labels(outputs: PretrainOutputs) -> PretrainOutputs:
    r"""Give each part of the outputs the weight $W n_r / \sum_s n_s$ of this rank's $n_r$ labels or texts.

    The parts of one loss differ: a rank may hold many masked tokens and few texts. One message of a few
    numbers.
    """
    if not is_distributed():
        return outputs
    labelled = {"encoder": outputs.encoder}
    if outputs.decoder is not None:
        labelled["decoder"] = outputs.decoder
    if outputs.translated is not None:
        labelled["translated"] = outputs.translated
    if outputs.generator is not None:
        labelled["generator"] = outputs.generator.labelled
    counts = [len(outputs.vectors), *(len(part.labels) for part in labelled.values())]
    everyone = gather_numbers(counts, outputs.vectors.device).cpu()
    weights = (
        len(everyone) * torch.tensor(counts, dtype=torch.float64) / everyone.sum(0).clamp_min(1)
    )
    of_texts, *of_labels = weights.tolist()
    parts = {
        name: replace(part, weight=weight)
        for (name, part), weight in zip(labelled.items(), of_labels, strict=True)
    }
    return replace(
        outputs,
        encoder=parts["encoder"],
        decoder=parts.get("decoder"),
        translated=parts.get("translated"),
        text_weight=of_texts,
        shuffled=outputs.shuffled and replace(outputs.shuffled, weight=parts["decoder"].weight),
        words=outputs.words and replace(outputs.words, weight=of_texts),
        generator=outputs.generator and replace(outputs.generator, labelled=parts["generator"]),
    )


@torch.no_grad()
def loss_figures(result: ObjectiveOutput, outputs: PretrainOutputs) -> dict[str, Tensor]:
    """Return an objective's figures, and the decoder's loss on the vectors of other texts."""
    figures = dict(result.metrics)
    if outputs.shuffled is not None:
        figures["decoder_loss_shuffled"] = token_loss(outputs, outputs.shuffled)
    return figures


@dataclass(eq=False)
class HeldOut(Measurement):
    """Measures the losses on held-out text."""

    batches: Sequence[MaskedBatch]
    """Fixed texts with fixed masks."""

    def measure(self, _: object, module: Any) -> Mapping[str, float]:  # noqa: ANN401 - a plain LightningModule
        """Return the mean losses."""
        figures: dict[str, float] = module.held_out_figures(self.batches)
        return figures
