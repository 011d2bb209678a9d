"""From the rows of a step to a masked batch: a pure function of seed and step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from embedtrain.contract.texts import join_texts
from embedtrain.data.mixture import Draw
from embedtrain.data.pretraining.corpus import CorpusConfig
from embedtrain.data.pretraining.masking import (
    Words,
    corrupt,
    extend_mask,
    mask_words,
    mask_words_independently,
)
from embedtrain.data.pretraining.spans import SpanMode, SpanSource, Starts, Tokens
from embedtrain.errors import UserError
from embedtrain.packed import Texts
from embedtrain.pretrain_types import MaskedBatch, Masking
from embedtrain.section import Count, Section

PairKind = Literal["mixed", "nearby", "random", "overlap"]
WINDOW = 100
"""Spans between two of a pair at most, in long documents."""


class PretrainDataConfig(Section):
    """The text to pre-train on."""

    sources: tuple[CorpusConfig, ...] = Field(min_length=1)
    """Each step draws its batch from one of them."""
    length: Count = 128
    """Tokens of a span, special tokens included."""
    spans: SpanMode = "split"
    """``split`` cuts documents at sentence ends, ``pack`` joins them first, ``truncate`` keeps their begin, and
    ``parallel`` that of a text and of its translation (``column`` and ``translation`` of each source)."""
    min_tokens: Count = 8
    """Shorter spans are left out; special tokens not counted."""
    pairs: PairKind = "mixed"
    """Which second span CoT-MAE takes: the next one, any within 100 spans, one that overlaps half, or one
    of these at random. Overlapping spans leak text, so compare decoder losses of the same kind only."""
    mixing_exponent: NonNegativeFloat = 1.0
    """Sources without a weight are drawn in proportion to ``spans ** mixing_exponent``."""
    cache: str | None = None
    """Folder of tokenised text; null is ~/.cache/embedtrain, or $EMBEDTRAIN_CACHE."""


@dataclass(frozen=True)
class Frame:
    """What a tokenizer puts around a text, and which tokens are ordinary."""

    prefix: Tokens
    suffix: Tokens
    mask_id: int
    special: Bool[Tensor, " vocabulary"]

    @property
    def num_special(self) -> int:
        """Tokens put around every text."""
        return len(self.prefix) + len(self.suffix)

    @property
    def ordinary(self) -> Int64[Tensor, " ordinary"]:
        """The ids that may replace a token."""
        return (~self.special).nonzero().squeeze(1)


def frame_of(
    tokenizer: Any,  # noqa: ANN401 - untyped
    vocabulary_size: int,
    place: str,
    *,
    first_token: bool = True,
) -> Frame:
    """Find what a tokenizer puts around a text.

    ``first_token``: the model needs a special token before the text, to stand for it.

    Raises:
        UserError: If it has no mask token, no first token that could stand for the text, or more tokens than
            the model knows.
    """
    if tokenizer.mask_token_id is None:
        raise UserError(
            place,
            "has a tokenizer without a mask token",
            cure="Add one with tokenizer.add_special_tokens or use `embedtrain tokenizer`",
        )
    if len(tokenizer) > vocabulary_size:
        raise UserError(
            place,
            f"has a tokenizer of {len(tokenizer)} tokens and a model of {vocabulary_size}",
            cure="Take the tokenizer and the model from one place",
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # some tokenizers are saved with fixed padding
    backend.no_padding()
    bare = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    where = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    if where == 0 and (first_token or whole[: len(bare)] != bare):
        raise UserError(
            place,
            "has a tokenizer that puts no token before a text, so none can stand for the text",
            cure="Set a post-processor such as [CLS] $A [SEP]",
        )
    special = torch.zeros(vocabulary_size, dtype=torch.bool)
    special[torch.tensor(tokenizer.all_special_ids)] = True
    special[len(tokenizer) :] = True  # rows of the embedding matrix that stand for no token
    return Frame(
        np.array(whole[:where], dtype=np.int32),
        np.array(whole[where + len(bare) :], dtype=np.int32),
        int(tokenizer.mask_token_id),
        special,
    )


@dataclass
class MaskedBatchBuilder:
    """Builds the batch of a draw: spans, framed and masked."""

    sources: Sequence[SpanSource]
    masking: Masking
    """What the objective wants hidden."""
    frame: Frame
    size: int
    """Tokens of a span at most, for spans that overlap."""
    pairs: PairKind = "mixed"
    """Which second span to take, where texts come in pairs; a draw's rows are documents then."""
    seed: int = 0
    """Of masks and pairs."""
    _last: tuple[tuple[int, int], MaskedBatch] | None = None

    def __call__(self, draw: Draw) -> MaskedBatch:
        """Return the batch; masks depend on seed and step only.

        Masks of a step are drawn together, so a part is cut out of the whole batch.
        """
        if draw.bounds is None:
            return self._whole(draw)
        key = draw.step, draw.source
        if self._last is None or self._last[0] != key:
            self._last = key, self._whole(draw)
        per_row = 2 if self.masking.pairs else 1
        first, last = (per_row * bound for bound in draw.bounds)
        part = self._last[1].select(torch.arange(first, last))
        return replace(part, partners=part.partners - first)

    def _whole(self, draw: Draw) -> MaskedBatch:
        source = self.sources[draw.source]
        entropy = np.random.default_rng([self.seed, 3, draw.step])
        if self.masking.pairs:
            spans = [
                span for row in draw.rows.tolist() for span in self._pair(source, row, entropy)
            ]
            partners = torch.arange(len(spans)) ^ 1
        else:
            spans = [source.span(row) for row in draw.rows.tolist()]
            partners = torch.arange(len(spans))
        generator = torch.Generator().manual_seed(int(entropy.integers(2**62)))
        texts, word_starts = self._framed(spans)
        return self._masked(texts, word_starts, partners, draw.source, generator)

    def _framed(
        self, spans: Sequence[tuple[Tokens, Starts]]
    ) -> tuple[Texts, Bool[Tensor, " tokens"]]:
        """Put the special tokens around each span and lay the spans end to end."""
        prefix, suffix = self.frame.prefix, self.frame.suffix
        before, after = (np.zeros(len(part), dtype=bool) for part in (prefix, suffix))
        texts = join_texts(np.concatenate([prefix, tokens, suffix]) for tokens, _ in spans)
        starts = [part for _, starts in spans for part in (before, starts, after)]
        return texts, torch.from_numpy(np.concatenate(starts))

    def _masked(
        self,
        texts: Texts,
        word_starts: Bool[Tensor, " tokens"],
        partners: Int64[Tensor, " texts"],
        source: int,
        generator: torch.Generator,
    ) -> MaskedBatch:
        masking, ids = self.masking, texts.ids
        special = self.frame.special[ids]
        words = Words.find(texts, word_starts, special)
        encoder_masked = mask_words(words, masking.encoder_ratio, generator)[:, 0]
        draws, picks = self._draw_by_position(texts, words, generator)
        decoder_masked = self._decoder_mask(words, encoder_masked, generator)

        def corrupted(masked: Tensor) -> Tensor:
            return corrupt(ids, masked, self.frame.mask_id, self.frame.ordinary, generator)

        return MaskedBatch(
            texts=texts,
            special=special,
            encoder_ids=corrupted(encoder_masked),
            encoder_masked=encoder_masked,
            decoder_ids=corrupted(decoder_masked),
            decoder_masked=decoder_masked,
            decoder_draws=draws,
            decoder_picks=picks,
            partners=partners,
            source=source,
        )

    def _decoder_mask(
        self, words: Words, encoder_masked: Tensor, generator: torch.Generator
    ) -> Tensor:
        masking = self.masking
        if masking.decoder_ratio == 0 or masking.by_position:
            return torch.zeros_like(encoder_masked)
        if masking.superset:
            return extend_mask(
                words, encoder_masked, masking.encoder_ratio, masking.decoder_ratio, generator
            )
        return mask_words(words, masking.decoder_ratio, generator)[:, 0]

    def _draw_by_position(
        self, texts: Texts, words: Words, generator: torch.Generator
    ) -> tuple[Bool[Tensor, "tokens draws"], Int64[Tensor, " tokens"]]:
        """Draw masks of whole texts, and which of them each position uses."""
        masking, num_tokens = self.masking, len(texts.ids)
        if not masking.by_position:
            return torch.zeros(num_tokens, 0, dtype=torch.bool), torch.zeros_like(texts.ids)
        if masking.num_draws is None:
            longest = int(texts.lengths.max())
            draws = mask_words_independently(
                words, masking.decoder_ratio, generator, num_draws=longest
            )
            starts = texts.lengths.cumsum(0) - texts.lengths
            picks = torch.arange(num_tokens) - torch.repeat_interleave(starts, texts.lengths)
        else:
            draws = mask_words(words, masking.decoder_ratio, generator, num_draws=masking.num_draws)
            picks = torch.randint(masking.num_draws, (num_tokens,), generator=generator)
        return draws.contiguous(), picks

    def _pair(
        self, source: SpanSource, row: int, entropy: np.random.Generator
    ) -> list[tuple[Tokens, Starts]]:
        """Return two spans of a document."""
        first, count = source.document(row)
        if self.masking.parallel:
            return [source.span(first), source.span(first + 1)]
        kind = self.pairs
        if kind == "mixed":
            kind = ("nearby", "random", "overlap")[int(entropy.integers(3))]
        if kind == "random":
            anchor = int(entropy.integers(count))
            low, high = max(0, anchor - WINDOW), min(count, anchor + WINDOW + 1)
            other = int(entropy.integers(low, high - 1))
            other += other >= anchor
            return [source.span(first + anchor), source.span(first + other)]
        anchor = int(entropy.integers(count - 1))
        ours, following = source.span(first + anchor), source.span(first + anchor + 1)
        if kind == "overlap":
            half = len(ours[0]) // 2
            following = (
                np.concatenate([ours[0][half:], following[0]])[: self.size],
                np.concatenate([ours[1][half:], following[1]])[: self.size],
            )
        swapped = bool(entropy.integers(2))
        return [following, ours] if swapped else [ours, following]
