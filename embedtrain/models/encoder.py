"""What dense and late-interaction encoders share: a backbone that runs over texts without padding."""

import logging
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract import AnyContract, Tokenization
from embedtrain.errors import UserError
from embedtrain.models.backbone import Backbone, position_offset
from embedtrain.models.chunking import Execution
from embedtrain.models.exits import exit_states
from embedtrain.models.packed_attention import NAME as PACKED
from embedtrain.models.packed_attention import length_groups
from embedtrain.models.pooling import pack_states, positions
from embedtrain.types import Embeddings, RetrievalBatch, RetrievalOutputs, Side, Texts

logger = logging.getLogger(__name__)

Packing = Literal["auto", "packed", "padded"]


class TextEncoder(nn.Module, ABC):
    """A backbone with its tokenizer and contract; a subclass makes embeddings of the token states.

    Args:
        backbone: Model and tokenizer.
        contract: Prompts, lengths and how states become embeddings.
        packing: ``packed``, ``padded``, or ``auto``, which packs on CPU if a check of this very
            backbone shows that it gives the same states.
        learn_temperature: Start value of a learnable temperature, or None.

    Raises:
        UserError: If a length exceeds the backbone's positions, or ``packed`` is not exact for it.
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
        super().__init__()
        for side in ("query", "document"):
            if contract.length(side) > backbone.max_length:
                raise UserError(
                    f"model.{side}.length",
                    f"is more than the {backbone.max_length} tokens that {backbone.path} has positions for",
                    got=contract.length(side),
                    cure="Lower it",
                )
        self.backbone: Any = backbone.model
        self._padded_attention: str = backbone.model.config._attn_implementation  # noqa: SLF001 - no getter
        self.tokenizer = backbone.tokenizer
        self.contract = contract
        start = torch.tensor([learn_temperature or 1.0]).log()
        # Shape [1], not []: DeepSpeed cannot broadcast 0-dimensional parameters.
        self.log_temperature = nn.Parameter(start) if learn_temperature else None
        self.packing: Packing = packing
        self._packed_is_exact: bool | None = None

    @property
    def tokenization(self) -> Tokenization:
        """Texts to token ids, under this model's contract."""
        return Tokenization(self.tokenizer, self.contract)

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension of a vector."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def temperature(self) -> Float[Tensor, ""] | None:
        """The learned temperature, with its gradient; None where none is learned."""
        return None if self.log_temperature is None else self.log_temperature.exp()[0]

    @abstractmethod
    def forward(self, batch: RetrievalBatch, execution: Execution) -> RetrievalOutputs:
        """Encode each distinct text of the batch once and lay the embeddings out by query and candidate."""

    @abstractmethod
    def embed(self, texts: Texts, execution: Execution, side: Side = "document") -> Embeddings:
        """Return the embeddings of the texts of one side, in their order, in float32 at least."""

    def packs(self, texts: Texts) -> bool:
        """Whether these texts will be encoded without padding."""
        if int(texts.lengths.min()) == 0:
            raise UserError("a text", "has no tokens", cure="Remove empty texts")
        return self._packs(texts.ids.device)

    def states(
        self,
        texts: Texts,
        attended: Int64[Tensor, " texts"] | None = None,
        *,
        packed: bool,
        layers: tuple[int, ...] = (),
    ) -> Float[Tensor, "tokens width"]:
        """Run the backbone and return the states of all tokens, laid end to end.

        Args:
            texts: Sorted by length where they are packed.
            attended: How many tokens of each text, from its first, others may look at; None for all.
            packed: Whether to compute without padding.
            layers: Also return the states that a backbone of so many layers would give, side by side
                before those of the whole one.
        """
        run = self._packed_states if packed else self._padded_states
        return run(texts, attended, layers)

    def _packed_states(
        self, texts: Texts, attended: Tensor | None = None, layers: tuple[int, ...] = ()
    ) -> Float[Tensor, "tokens width"]:
        self._use_attention(PACKED)
        places = positions(texts.lengths) + position_offset(self.backbone.config)
        seen = texts.lengths if attended is None else attended
        output = self.backbone(
            input_ids=texts.ids[None],
            position_ids=places[None],
            sequence_groups=length_groups(texts.lengths.tolist(), seen.tolist()),
            use_cache=False,
            output_hidden_states=bool(layers),
        )
        return exit_states(self.backbone, output, layers)[0]

    def _padded_states(
        self, texts: Texts, attended: Tensor | None = None, layers: tuple[int, ...] = ()
    ) -> Float[Tensor, "tokens width"]:
        self._use_attention(self._padded_attention)
        width = int(texts.lengths.max())
        columns = torch.arange(width, device=texts.ids.device)
        mask = columns < texts.lengths[:, None]
        seen = mask if attended is None else columns < attended[:, None]
        ids = torch.full(mask.shape, self.tokenizer.pad_token_id or 0, device=texts.ids.device)
        ids[mask] = texts.ids
        output = self.backbone(
            input_ids=ids,
            attention_mask=seen.long(),
            use_cache=False,
            output_hidden_states=bool(layers),
        )
        return pack_states(exit_states(self.backbone, output, layers), mask)[0]

    def use_padded_attention(self) -> None:
        """Put the backbone back on the attention it was loaded with; encoding switches when it needs to."""
        self._use_attention(self._padded_attention)

    def _use_attention(self, name: str) -> None:
        if self.backbone.config._attn_implementation != name:  # noqa: SLF001 - no getter
            self.backbone.set_attn_implementation(name)

    def _packs(self, device: torch.device) -> bool:
        """Decide, once, whether to pack; an explicit wish that cannot be met is an error."""
        if self.packing == "padded" or (self.packing == "auto" and device.type != "cpu"):
            return False
        if self._packed_is_exact is None:
            self._packed_is_exact = self._check_packing(device)
            logger.info("packing: %s", "packed" if self._packed_is_exact else "padded")
        if self.packing == "packed" and not self._packed_is_exact:
            raise UserError(
                "model.packing", "packed is not exact for this backbone", cure="Use auto or padded"
            )
        return self._packed_is_exact

    @torch.no_grad()
    def _check_packing(self, device: torch.device) -> bool:
        """Compare packed with padded states on random tokens, longer than any attention window.

        Backbones differ in what they make of positions and masks; a wrong guess would be silent.
        """
        limit = max(self.contract.length("query"), self.contract.length("document"))
        lengths = torch.tensor(sorted({limit, min(limit, 19), min(limit, 7)}, reverse=True))
        lengths = torch.cat([lengths, lengths[-1:]]).to(device)
        generator = torch.Generator().manual_seed(0)
        total, vocabulary = int(lengths.sum()), self.backbone.config.vocab_size
        ids = torch.randint(0, vocabulary, (total,), generator=generator).to(device)
        ids[ids == (self.tokenizer.pad_token_id or 0)] = vocabulary - 1
        texts = Texts(ids, lengths)
        attended = self._attended_in_check(lengths)
        training = self.backbone.training
        self.backbone.eval()
        try:
            with torch.autocast(device.type, enabled=False):
                padded = self._padded_states(texts, attended)
                packed = self._packed_states(texts, attended)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            logger.info("packing is not possible with this backbone: %s", error)
            return False
        finally:
            self.backbone.train(training)
        scale = padded.abs().max()
        return bool((packed - padded).abs().max() <= 1e-4 * scale)

    def _attended_in_check(self, lengths: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return how many tokens the check lets others look at; None where that never differs."""
        return None
