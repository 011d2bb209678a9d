"""What dense and late-interaction encoders share: texts become vectors, each by itself."""

from abc import abstractmethod

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.contract.texts import AnyContract, TextSide
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import Backbone, BackboneConfig, Packing
from embedtrain.models.chunking import Execution
from embedtrain.models.text_model import TextModel
from embedtrain.packed import Texts, laid_end_to_end
from embedtrain.types import Embeddings, RetrievalBatch, Side


class EncoderConfig(BackboneConfig):
    """What the sections of both kinds of bi-encoders share."""

    query: TextSide = TextSide()
    document: TextSide = TextSide()
    long_inputs: LongInputs | None = None
    """Positions for texts beyond those that the backbone was trained on; null: as the folder says."""
    learn_temperature: PositiveFloat | None = None
    """Start value of a learnable temperature; null leaves the temperature to the objective."""
    trust_remote_code: bool = False
    """Run modelling code from the model's repository. Only for repositories you trust."""


class TextEncoder(TextModel):
    """A model that makes embeddings of the token states.

    Args:
        backbone: Model and tokenizer.
        contract: Prompts, lengths and how states become embeddings.
        packing: See :class:`TextModel`.
        learn_temperature: Start value of a learnable temperature, or None.

    Raises:
        UserError: As :class:`TextModel` does, or if a length leaves no room for a text.
    """

    contract: AnyContract

    def __init__(
        self,
        backbone: Backbone,
        contract: AnyContract,
        *,
        packing: Packing = "auto",
        learn_temperature: float | None = None,
    ) -> None:
        special = backbone.tokenizer.num_special_tokens_to_add()
        for side in ("query", "document"):
            if contract.length(side) <= special:  # the tokenizer would then cut nothing
                raise UserError(
                    self.length_keys[side],
                    f"leaves no room for a text beside {special} special tokens",
                    got=contract.length(side),
                    cure="Raise it",
                )
        super().__init__(backbone, contract, packing=packing)
        start = torch.tensor([learn_temperature or 1.0]).log()
        # Shape [1], not []: DeepSpeed cannot broadcast 0-dimensional parameters.
        self.log_temperature = nn.Parameter(start) if learn_temperature else None

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension of a vector."""

    @property
    def temperature(self) -> Float[Tensor, ""] | None:
        """The learned temperature, with its gradient; None where none is learned."""
        return None if self.log_temperature is None else self.log_temperature.exp()[0]

    @abstractmethod
    def embed(self, texts: Texts, execution: Execution, side: Side = "document") -> Embeddings:
        """Return the embeddings of the texts of one side, in their order, in float32 at least."""

    def texts_of(self, batch: RetrievalBatch) -> Texts:
        """Return the distinct texts of both sides."""
        return laid_end_to_end(batch.queries, batch.documents)

    def values(self, texts: Texts, execution: Execution) -> Float[Tensor, "rows dim"]:
        """Return the vectors of texts, all in one."""
        embeddings = self.embed(texts, execution)
        return embeddings if isinstance(embeddings, Tensor) else embeddings.tokens
