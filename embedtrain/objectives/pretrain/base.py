"""What every pre-training objective is: frozen hyper-parameters, what they ask for, and one call."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from embedtrain.ops.linear_cross_entropy import linear_cross_entropy
from embedtrain.pretrain_types import Computation, Labelled, Masking, PretrainOutputs
from embedtrain.section import Section
from embedtrain.types import ObjectiveOutput


class PretrainObjective(Section, ABC):
    """A pre-training objective. Its fields are the recipe's ``objective:`` section.

    It says what the data must hide and what the model must compute, and makes a loss of the outputs. A
    subclass is final, declares ``name: Literal["..."]`` and is found by being in this package.
    """

    @property
    @abstractmethod
    def masking(self) -> Masking:
        """What is hidden from encoder and decoder."""

    @property
    @abstractmethod
    def computation(self) -> Computation:
        """What the model must compute."""

    @property
    def keeps_head(self) -> bool:
        """Whether the exported model needs the masked-language head."""
        return False

    @property
    def needs_all_vectors(self) -> bool:
        """Whether the vectors of all ranks are to be brought together."""
        return False

    @property
    def smallest_batch(self) -> int:
        """The fewest texts of a step that it says anything about."""
        return 1

    @abstractmethod
    def __call__(self, outputs: PretrainOutputs) -> ObjectiveOutput:
        """Return the loss of a batch, averaged over labelled tokens, and figures for the log."""


def token_loss(outputs: PretrainOutputs, labelled: Labelled) -> Float[Tensor, ""]:
    """Return the weighted mean cross-entropy of the head at labelled tokens; 0 if there are none."""
    mean = linear_cross_entropy(
        labelled.hidden,
        outputs.weight,
        labelled.labels,
        outputs.bias,
        num_labelled=len(labelled.labels),
    )
    return mean * labelled.weight


def masked_language_loss(outputs: PretrainOutputs) -> ObjectiveOutput:
    r"""Return $\mathcal{L}_{enc}$ alone."""
    loss = token_loss(outputs, outputs.encoder)
    return ObjectiveOutput(loss, {"encoder_loss": loss.detach()})


def reconstruction(outputs: PretrainOutputs, decoder_weight: float = 1.0) -> ObjectiveOutput:
    r"""Return $\mathcal{L}_{enc} + \lambda \mathcal{L}_{dec}$, both parts detached beside it."""
    assert outputs.decoder is not None
    encoder = token_loss(outputs, outputs.encoder)
    decoder = token_loss(outputs, outputs.decoder)
    metrics = {"encoder_loss": encoder.detach(), "decoder_loss": decoder.detach()}
    return ObjectiveOutput(encoder + decoder_weight * decoder, metrics)
