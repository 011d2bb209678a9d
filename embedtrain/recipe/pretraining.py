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
    def _parts_fit(self) -> "PretrainRecipe":
        if self.trainer.auto:
            raise ValueError("trainer: auto is for retrieval: give steps and batch_size")
        if self.trainer.blend is not None:
            raise ValueError("trainer.blend is for retrieval: pre-training keeps its last state")
        if self.trainer.patience is not None:
            raise ValueError("trainer.patience is for retrieval: pre-training keeps its last state")
        if not self.objective.masking.pairs:
            if self.data.pairs != "mixed":
                raise ValueError(
                    f"data.pairs is of no use to the objective {name_of(self.objective)}"
                )
            return self
        if self.data.spans != "split":
            raise ValueError("this objective needs several spans of a document: data.spans: split")
        if self.trainer.batch_size % 2:
            raise ValueError("this objective takes texts in pairs: trainer.batch_size must be even")
        return self
