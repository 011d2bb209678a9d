"""The recipe of a pre-training run: what ``model: {kind: masked_autoencoder}`` makes of a YAML file."""

from pydantic import model_validator

from embedtrain.data.pretraining.masked_batches import PretrainDataConfig
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoderConfig
from embedtrain.objectives.own import name_of
from embedtrain.objectives.pretrain import AnyPretrainObjective
from embedtrain.section import Count, Section
from embedtrain.training.settings import TrainerConfig


class HeldOutConfig(Section):
    """Measure the losses on text that is not trained on."""

    num_texts: Count = 256
    """Taken from the end of the first source."""
    every_steps: Count = 500
    """Steps between two measurements."""


class PretrainRecipe(Section):
    """A pre-training run, whole. ``trainer.batch_size`` counts texts here."""

    description: str
    """One line for `embedtrain recipes`: what it is for."""
    data: PretrainDataConfig
    model: MaskedAutoencoderConfig
    objective: AnyPretrainObjective
    trainer: TrainerConfig
    validation: HeldOutConfig | None = None

    @model_validator(mode="after")
    def _trainer_fits(self) -> "PretrainRecipe":
        if self.trainer.auto:
            raise ValueError("trainer: auto is for retrieval: give steps and batch_size")
        if self.trainer.blend is not None:
            raise ValueError("trainer.blend is for retrieval: pre-training keeps its last state")
        if self.trainer.patience is not None:
            raise ValueError("trainer.patience is for retrieval: pre-training keeps its last state")
        size, least = self.trainer.batch_size, self.objective.smallest_batch
        if size < least:
            raise ValueError(f"this objective needs trainer.batch_size of {least} at least")
        if self.objective.masking.pairs and size % 2:
            raise ValueError("this objective takes texts in pairs: trainer.batch_size must be even")
        return self

    @model_validator(mode="after")
    def _pairs_fit(self) -> "PretrainRecipe":
        masking, data = self.objective.masking, self.data
        if data.pairs != "mixed" and (masking.parallel or not masking.pairs):
            raise ValueError(f"data.pairs is of no use to the objective {name_of(self.objective)}")
        if masking.parallel != (data.spans == "parallel"):
            raise ValueError(
                "data.spans: parallel goes with the objective mexma, and mexma with it"
            )
        if masking.pairs and not masking.parallel and data.spans != "split":
            raise ValueError("this objective needs several spans of a document: data.spans: split")
        if any((one.translation is not None) != masking.parallel for one in data.sources):
            raise ValueError(
                "translation of a source is for data.spans: parallel, and needed there in each"
            )
        return self
