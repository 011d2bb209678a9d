"""Masked autoencoder: an encoder that must squeeze a text into one vector, and a weak decoder that tests it.

What runs is what the objective asks for (:class:`embedtrain.pretrain_types.Computation`): MLM needs the
encoder alone, RetroMAE an enhanced decoder, CoT-MAE, SimLM, Condenser and MEXMA a plain one. Texts stay packed, the
decoder pads each chunk; logits are never computed here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import model_validator
from torch import Tensor, nn

from embedtrain.contract.texts import Contract
from embedtrain.errors import UserError
from embedtrain.models.backbone.language_head import Architecture, MaskedLanguageModel
from embedtrain.models.backbone.loading import BackboneConfig, Packing
from embedtrain.models.chunking import Execution, computed_again, plan_together
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.pooling import grid_places, pool, positions
from embedtrain.models.pretraining.decoder import Decoder
from embedtrain.models.pretraining.decoding import (
    DecoderConfig,
    build_decoder,
    decode,
    decoder_labels,
)
from embedtrain.models.pretraining.generator import Generator, GeneratorConfig
from embedtrain.ops.similarity import text_of_token
from embedtrain.packed import Texts, upload
from embedtrain.pretrain_types import Computation, Labelled, MaskedBatch, PretrainOutputs, WordBag

T = TypeVar("T")


class MaskedAutoencoderConfig(BackboneConfig):
    """An encoder to pre-train, and what helps it."""

    kind: Literal["masked_autoencoder"]
    backbone: str
    """Hub id, local folder or ``package:NAME/FOLDER``; with ``architecture``, a folder with a tokenizer."""
    architecture: Architecture | None = None
    """Start from scratch with these sizes; null starts from the backbone's weights."""
    pooling: Literal["cls", "mean"] = "cls"
    """What becomes the vector of a text, here and in the exported model."""
    mask_token: str | None = None
    """Stands for hidden tokens where the tokenizer has no mask token: one it knows, such as ``_``."""
    decoder: DecoderConfig = DecoderConfig()
    generator: GeneratorConfig | None = None
    """SimLM: the small language model that fills the masked places."""

    @model_validator(mode="after")
    def _trains_all_or_biases(self) -> "MaskedAutoencoderConfig":
        if self.train not in (None, "biases"):
            raise ValueError("in pre-training train takes only biases: leave the list out")
        return self


@dataclass(frozen=True)
class _Encoded:
    """What the encoder makes of a chunk."""

    hidden: Tensor
    vectors: Tensor
    words: Tensor | None
    early: Tensor | None


class MaskedAutoencoder(nn.Module):
    """Encoder with language head, decoder and generator as far as they are needed.

    The contract is that of the exported encoder; its pooling makes the vectors.
    """

    def __init__(
        self,
        language: MaskedLanguageModel,
        contract: Contract,
        computation: Computation,
        decoder: DecoderConfig,
        generator: Generator | None = None,
        *,
        packing: Packing = "auto",
    ) -> None:
        super().__init__()
        self.language = language
        self.encoder = DenseEncoder(language.backbone, contract, packing=packing)
        self.computation = computation
        self.generator = generator
        self.decoder: Decoder | None = None
        if computation.decoder != "none":
            self.decoder = build_decoder(decoder, language, computation, contract.document_length)
        if computation.clean_pass:
            language.freeze_transform()

    def forward(
        self, batch: MaskedBatch, execution: Execution, *, diagnose: bool = False
    ) -> PretrainOutputs:
        """Encode and decode a batch chunk by chunk.

        Args:
            batch: Masked texts.
            execution: Chunk size and rematerialisation; the result is the same.
            diagnose: Decode once more, without gradient, from the vectors of other texts: how much worse that
                is says whether the vectors are used.
        """
        packed = self.encoder.packs(batch.texts)
        pads = not packed or self.decoder is not None  # a decoder always does
        rows, idle = plan_together(batch.texts.sizes, execution, padded=pads)
        if idle:
            raise UserError(
                "trainer.chunk_tokens",
                "cuts this rank's texts into fewer chunks than another's",
                got=execution.chunk_tokens,
                cure="Raise it",
            )
        chunks = [batch.select(chosen) for chosen in rows]
        guesses = None
        if self.generator is not None:
            chunks, guesses = self.generator.fill(chunks)
        again = execution.num_recomputed(len(chunks))
        encoded = [
            _run(lambda chunk: self._encode(chunk, packed), chunk, number < again)
            for number, chunk in enumerate(chunks)
        ]
        order = upload(torch.cat(rows).argsort(), batch.texts.ids.device)
        vectors = torch.cat([part.vectors for part in encoded])[order]
        decoder, translated, shuffled = None, None, None
        if self.decoder is not None:
            decoder = self._decode_all(chunks, encoded, vectors, again)
        if decoder is not None and self.computation.clean_pass:
            second = [
                self._is_second(chunk, chosen) for chunk, chosen in zip(chunks, rows, strict=True)
            ]
            decoder, translated = _divided(decoder, upload(torch.cat(second), vectors.device))
        if self.decoder is not None and diagnose and len(batch) > 2:
            with torch.no_grad(), torch.random.fork_rng():
                shuffled = self._decode_all(chunks, encoded, vectors.roll(2, 0), 0)
        labels = [chunk.texts.ids[self._encoder_labels(chunk)] for chunk in chunks]
        return PretrainOutputs(
            weight=self.language.weight,
            bias=self.language.bias,
            encoder=Labelled(torch.cat([part.hidden for part in encoded]), torch.cat(labels)),
            vectors=vectors,
            decoder=decoder,
            translated=translated,
            shuffled=shuffled,
            words=self._word_bag(chunks, encoded) if self.computation.bag_of_words else None,
            generator=guesses,
            figures=_figures(chunks),
        )

    def _encode(self, chunk: MaskedBatch, packed: bool) -> _Encoded:
        texts = Texts(chunk.encoder_ids, chunk.texts.lengths, chunk.texts.sizes)
        early: list[Tensor] = []
        hook = None
        if self.computation.early_layer is not None:
            layers = self.language.layers
            layer = layers[max(0, round(self.computation.early_layer * len(layers)) - 1)]
            hook = layer.register_forward_hook(
                lambda _module, _inputs, out: early.append(
                    out[0] if isinstance(out, tuple) else out
                )
            )
        try:
            states = self.encoder.states(texts, packed=packed)
        finally:
            if hook is not None:
                hook.remove()
        pooling = self.encoder.contract.pooling
        if self.computation.clean_pass:
            clean = self.encoder.states(chunk.texts, packed=packed)
            return _Encoded(states[:0], pool(clean, texts.lengths, pooling), None, states)
        vectors = pool(states, texts.lengths, pooling)
        labelled = self._encoder_labels(chunk)
        if self.computation.shifted:
            labelled = labelled - 1  # the first token of all has no label
        if not self.computation.bag_of_words:
            hidden = self.language.transform(states[labelled])
            return _Encoded(hidden, vectors, None, _packed(early, texts, packed))
        transformed = self.language.transform(states)
        words = transformed[upload((positions(texts.sizes) > 0).nonzero()[:, 0], states.device)]
        return _Encoded(transformed[labelled], vectors, words, _packed(early, texts, packed))

    def _decode_all(
        self,
        chunks: list[MaskedBatch],
        encoded: list[_Encoded],
        vectors: Float[Tensor, "texts dim"],
        again: int,
    ) -> Labelled:
        hidden, labels = [], []
        assert self.decoder is not None
        run = partial(decode, self.decoder, self.language, self.computation)
        for number, (chunk, part) in enumerate(zip(chunks, encoded, strict=True)):
            inputs = vectors[chunk.partners], part.early
            hidden.append(_run(run, chunk, number < again, *inputs))
            labels.append(chunk.texts.ids[decoder_labels(self.computation, chunk)])
        return Labelled(torch.cat(hidden), torch.cat(labels))

    def _encoder_labels(self, chunk: MaskedBatch) -> Int64[Tensor, " labelled"]:
        """Return the places of the tokens that the encoder is to predict."""
        host = chunk.on_host
        if self.computation.clean_pass:
            return chunk.texts.ids.new_empty(0)
        labels = ~host.special if self.computation.all_tokens else host.encoder_masked
        if self.computation.shifted:
            # The first token has no state before it: the one there belongs to another text.
            labels = labels & (positions(host.texts.lengths) > 0)
        return upload(labels.nonzero()[:, 0], chunk.texts.ids.device)

    def _is_second(
        self, chunk: MaskedBatch, rows: Int64[Tensor, " chosen"]
    ) -> Bool[Tensor, " labelled"]:
        """Tell of each token that the decoder rebuilds whether it is of the second text of a pair."""
        host = chunk.on_host
        labelled = decoder_labels(self.computation, host)
        return (rows % 2 == 1)[text_of_token(host.texts.lengths)][labelled]

    def _word_bag(self, chunks: list[MaskedBatch], encoded: list[_Encoded]) -> WordBag:
        """Collect the states of all ordinary tokens and the distinct words of each untouched text."""
        hosts = [chunk.on_host for chunk in chunks]
        lengths = torch.cat([host.texts.lengths for host in hosts])
        ids = torch.cat([host.texts.ids for host in hosts])
        ordinary = ~torch.cat([host.special for host in hosts])
        owner = text_of_token(lengths)
        vocabulary = len(self.language.weight)
        pairs = torch.unique(owner[ordinary] * vocabulary + ids[ordinary])
        numbers = torch.bincount(owner[ordinary], minlength=len(lengths))
        device = chunks[0].texts.ids.device
        return WordBag(
            hidden=torch.cat([part.words for part in encoded if part.words is not None]),
            lengths=lengths - 1,
            bag_texts=upload(pairs // vocabulary, device),
            bag_ids=upload(pairs % vocabulary, device),
            num_tokens=upload(numbers, device),
            num_words=torch.bincount(pairs // vocabulary, minlength=len(lengths)),
        )


def _run(function: Callable[..., T], chunk: MaskedBatch, recomputed: bool, *inputs: object) -> T:
    """Call ``function``; ``recomputed`` keeps no activations and calls it again in the backward pass."""
    if not recomputed:
        return function(chunk, *inputs)
    return computed_again(function, chunk, *inputs, on_device=chunk.texts.ids)


def _divided(labelled: Labelled, second: Bool[Tensor, " labelled"]) -> tuple[Labelled, Labelled]:
    """Return the labels of first texts and those of second ones."""
    first, other = (
        Labelled(labelled.hidden[chosen], labelled.labels[chosen])
        for chosen in ((~second).nonzero()[:, 0], second.nonzero()[:, 0])
    )
    return first, other


def _packed(early: list[Tensor], texts: Texts, packed: bool) -> Tensor | None:
    """Return the states that a hook caught, laid end to end."""
    if not early:
        return None
    if packed:
        return early[0][0, : len(texts.ids)]  # behind them are tokens that fill up to a size
    places = grid_places(texts.sizes, early[0].shape[1])
    return early[0].flatten(0, 1)[upload(places, texts.ids.device)]


def _figures(chunks: list[MaskedBatch]) -> dict[str, Tensor]:
    """Count how many ordinary tokens are masked, and how many differ from the text."""
    special = torch.cat([chunk.special for chunk in chunks])
    ids = torch.cat([chunk.texts.ids for chunk in chunks])
    marks = {
        "masked_ratio": torch.cat([chunk.encoder_masked for chunk in chunks]),
        "encoder_changed_ratio": torch.cat([chunk.encoder_ids for chunk in chunks]) != ids,
    }
    if any(bool(chunk.on_host.decoder_masked.any()) for chunk in chunks):
        decoder_ids = torch.cat([chunk.decoder_ids for chunk in chunks])
        marks["decoder_changed_ratio"] = decoder_ids != ids
    ordinary = (~special).sum().clamp_min(1)
    return {name: marked.sum() / ordinary for name, marked in marks.items()}
