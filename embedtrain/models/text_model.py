"""What all kinds of models share: a backbone that runs over texts without padding, and a contract."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.contract.texts import ModelContract, Tokenization
from embedtrain.errors import UserError
from embedtrain.models.backbone.attention.layout import lay_out
from embedtrain.models.backbone.families import encoder_of, to_encoder
from embedtrain.models.backbone.few_shapes import fill_up
from embedtrain.models.backbone.loading import Backbone, Packing, position_offset
from embedtrain.models.backbone.long_positions import (
    long_positions,
    refuse_own_positions,
    refuse_untuned,
    take_fractions,
    token_types,
)
from embedtrain.models.backbone.packed_attention import NAME as PACKED
from embedtrain.models.backbone.packing_check import Running, enough, states_agree, texts_to_check
from embedtrain.models.backbone.padded_attention import padded_attention
from embedtrain.models.backbone.self_extend import NAME as SELF_EXTEND
from embedtrain.models.backbone.self_extend import Extension, extension
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.chunking import Execution
from embedtrain.models.exits import exit_states
from embedtrain.models.first_tokens import last_layer
from embedtrain.models.pooling import grid_places, in_grid, positions, segment_types
from embedtrain.packed import Texts, upload
from embedtrain.types import RetrievalBatch, RetrievalOutputs, Side

logger = logging.getLogger(__name__)


class TextModel(nn.Module, ABC):
    """A backbone with its tokenizer and contract; a subclass makes embeddings or scores of the token states.

    Args:
        backbone: Model and tokenizer.
        contract: Lengths, what stands around texts, and how states become what is wanted.
        packing: ``packed``, ``padded``, or ``auto``, which packs on CPU and CUDA if a check of this very
            backbone shows that it gives the same states.

    Raises:
        UserError: If a length exceeds the backbone's positions, or ``packed`` is not exact for it.
    """

    contract: ModelContract
    length_keys: ClassVar[Mapping[Side, str]] = {
        "query": "model.query.length",
        "document": "model.document.length",
    }
    """Which keys of a recipe set the lengths."""

    def __init__(
        self, backbone: Backbone, contract: ModelContract, *, packing: Packing = "auto"
    ) -> None:
        super().__init__()
        long = contract.long_inputs
        limit = backbone.max_length if long is None or long.in_weights else long.length
        for side in ("query", "document"):
            if contract.length(side) > limit:
                raise UserError(
                    self.length_keys[side],
                    f"is more than the {limit} tokens that {backbone.path} has positions for",
                    got=contract.length(side),
                    cure="Lower it, or set model.long_inputs",
                )
        self.backbone: Any = backbone.model
        self._padded_attention: str = backbone.model.config._attn_implementation  # noqa: SLF001 - no getter
        self.tokenizer = backbone.tokenizer
        self.contract = contract
        self.packing: Packing = packing
        self._packed_is_exact: dict[Running, bool] = {}
        self._extension: Extension | None = None
        self._first_alone = False
        self.read_long_inputs()

    def read_long_inputs(self) -> None:
        """Get ready for the positions that the contract asks for.

        Raises:
            UserError: If the backbone does not go by positions that it is given.
        """
        wish = self.own_positions
        if wish is None:
            return
        self._packed_is_exact = {}
        if wish.method == "self_extend":
            self._extension = extension(self.backbone, wish, "model.long_inputs")
        else:
            self.use_padded_attention()
            take_fractions(self.backbone)
            refuse_untuned(self.backbone, wish)
            refuse_own_positions(self.backbone, "model.long_inputs")

    @property
    def own_positions(self) -> LongInputs | None:
        """What gives tokens their positions, where weights and config do not."""
        wish = self.contract.long_inputs
        return None if wish is None or wish.in_weights else wish

    @property
    def tokenization(self) -> Tokenization:
        """Texts to token ids, under this model's contract."""
        return Tokenization(self.tokenizer, self.contract)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @abstractmethod
    def forward(self, batch: RetrievalBatch, execution: Execution) -> RetrievalOutputs:
        """Run the backbone over each distinct text of the batch once; lay out what objectives are given."""

    @abstractmethod
    def texts_of(self, batch: RetrievalBatch) -> Texts:
        """Return what :meth:`forward` runs the backbone over."""

    @abstractmethod
    def values(self, texts: Texts, execution: Execution) -> Float[Tensor, "rows dim"]:
        """Return the numbers that training makes of texts, whatever they mean: what memory and time depend on."""

    def packs(self, texts: Texts) -> bool:
        """Whether these texts will be encoded without padding."""
        if isinstance(self.backbone, WordTable):
            return True  # no token looks at another, and a text may have none
        if int(texts.sizes.min()) == 0:
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
            attended: How many tokens of each text, from its first, others may look at, on the CPU; None for all.
            packed: Whether to compute without padding.
            layers: Also return the states that a backbone of so many layers would give, side by side
                before those of the whole one.
        """
        if isinstance(self.backbone, WordTable):
            rows: Tensor = self.backbone(texts.ids)
            return rows
        run = self._packed_states if packed else self._padded_states
        return run(texts, attended, layers)

    def first_states(self, texts: Texts, *, packed: bool) -> Float[Tensor, "texts width"]:
        """Return the state of each text's first token, as :meth:`states` gives it.

        On a CPU the last layer computes no others, where it can.
        """
        if packed and self._first_alone and texts.ids.device.type == "cpu":
            return self._packed_states(texts, first_of=last_layer(self.backbone))
        starts = texts.lengths.cumsum(0) - texts.lengths
        return self.states(texts, packed=packed)[starts]

    def _packed_states(
        self,
        texts: Texts,
        attended: Tensor | None = None,
        layers: tuple[int, ...] = (),
        first_of: nn.Module | None = None,
        **rehearsed: bool,
    ) -> Float[Tensor, "rows width"]:
        self._use_attention(PACKED if self._extension is None else SELF_EXTEND)
        rows = len(texts.ids if first_of is None else texts)
        if texts.ids.device.type == "cpu":
            texts, attended = fill_up(texts, attended, self.tokenizer.pad_token_id or 0)
        more: dict[str, Any] = {"position_ids": self._places(texts)[None]}
        kinds = segment_types(texts)
        if kinds is not None:
            more["token_type_ids"] = kinds[None]
        if self._extension is not None:
            more["extension"] = self._extension
        elif self.own_positions is not None:
            more |= token_types(self.backbone, texts.ids[None])
        seen = None if attended is None else attended.tolist()
        more["layout"] = lay_out(
            texts.sizes.tolist(), texts.ids.device, seen, first_of=first_of, **rehearsed
        )
        states = self._run(layers, input_ids=texts.ids[None], **more)[0]
        assert len(states) == len(texts.ids if first_of is None else texts)
        return states[:rows]

    def _run(self, layers: tuple[int, ...], **inputs: object) -> Float[Tensor, "texts width dim"]:
        """Return the states after each of ``layers`` and after the last, side by side."""
        hidden = bool(layers)
        reader = encoder_of(self.backbone)
        output = reader(**inputs, use_cache=False, output_hidden_states=hidden)
        return exit_states(self.backbone, output, layers)

    def _places(self, texts: Texts) -> Tensor:
        """Return the position of each token, as the backbone counts; it may be a fraction."""
        wish, lengths = self.own_positions, texts.sizes
        places = positions(lengths) if wish is None else long_positions(lengths, wish)
        return upload(places + position_offset(self.backbone.config), texts.ids.device)

    def _padded_states(
        self, texts: Texts, attended: Tensor | None = None, layers: tuple[int, ...] = ()
    ) -> Float[Tensor, "tokens width"]:
        width, device = int(texts.sizes.max()), texts.ids.device
        self._use_attention(padded_attention(self._padded_attention, device))
        columns = torch.arange(width, device=device)
        looked_at = texts.lengths if attended is None else upload(attended, device)
        seen = columns < looked_at[:, None]
        inside = upload(grid_places(texts.sizes, width), device)
        pad = self.tokenizer.pad_token_id or 0
        ids = in_grid(texts.ids, inside, seen.shape, pad)
        more: dict[str, Any] = {}
        kinds = segment_types(texts)
        if kinds is not None:
            more["token_type_ids"] = in_grid(kinds, inside, seen.shape)
        if self.own_positions is not None:
            grid = in_grid(self._places(texts), inside, seen.shape)
            more = {"position_ids": grid, **token_types(self.backbone, ids)}
        states = self._run(layers, input_ids=ids, attention_mask=seen.long(), **more)
        return states.flatten(0, 1).index_select(0, inside)

    def use_padded_attention(self) -> None:
        """Put the backbone back on the attention it was loaded with; encoding switches when it needs to."""
        self._use_attention(self._padded_attention)

    @contextmanager
    def plain_attention(self) -> Iterator[None]:
        """Compute attention by plain products in this block, its mask added to the scores."""
        self._use_attention("eager")
        try:
            yield
        finally:
            self.use_padded_attention()

    def _use_attention(self, name: str) -> None:
        if self.backbone.config._attn_implementation != name:  # noqa: SLF001 - no getter
            self.backbone.set_attn_implementation(to_encoder(self.backbone.config, name))
            if self.backbone.config._attn_implementation != name:  # noqa: SLF001
                family = self.backbone.config.model_type
                raise ValueError(f"the family {family} takes no attention from outside")

    def _packs(self, device: torch.device) -> bool:
        """Decide, once, whether to pack; an explicit wish that cannot be met is an error."""
        packing = self.packing if self._extension is None else "packed"  # where it is written
        if packing == "padded" or (packing == "auto" and device.type not in ("cpu", "cuda")):
            return False
        running = Running.of(self.backbone, device)
        if running not in self._packed_is_exact:
            self._packed_is_exact[running] = self._check_packing(device, running)
            logger.info("packing: %s", "packed" if self._packed_is_exact[running] else "padded")
        if packing == "packed" and not self._packed_is_exact[running]:
            place = "model.packing" if self._extension is None else "model.long_inputs"
            raise UserError(
                place, "packed is not exact for this backbone", cure="Use auto or another method"
            )
        return self._packed_is_exact[running]

    def _check_packing(self, device: torch.device, running: Running) -> bool:
        """Compare packed with padded states, of texts that are longer than any attention window."""
        limit = max(self.contract.length("query"), self.contract.length("document"))
        if self._extension is not None:
            limit = min(limit, self._extension.wish.known_window)  # padding knows no longer ones
        if self.own_positions is None:
            limit = enough(limit, self.backbone.config)
        vocabulary, padding = self.backbone.config.vocab_size, self.tokenizer.pad_token_id
        texts = texts_to_check(limit, vocabulary, padding, device)
        attended = self._attended_in_check(texts.sizes)
        as_then = {"in_training": self.backbone.training, "drops": running.drops}
        return states_agree(
            self.backbone,
            running,
            texts.sizes.tolist(),
            lambda: self._padded_states(texts, attended),
            lambda: self._packed_states(texts, attended, **as_then),
        )

    def _attended_in_check(self, lengths: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return how many tokens the check lets others look at; None where that never differs."""
        return None
